package sigma

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// piece is part of a pattern: a literal, any text (*), any one character (?),
// or one of the dashes that Windows takes for one.
type piece struct {
	literal string
	kind    pieceKind
}

type pieceKind uint8

const (
	literal pieceKind = iota
	anyText
	anyOne
	dash
)

const dashes = "-/–—―"

// pattern is a text with wildcards.
type pattern []piece

// parsePattern reads wildcards and escapes: \* \? \\ are the characters
// themselves, a backslash before anything else is one.
func parsePattern(text string) pattern {
	var p pattern
	var run strings.Builder
	flush := func() {
		if run.Len() > 0 {
			p = append(p, piece{literal: run.String()})
			run.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && strings.IndexByte(`*?\`, text[i+1]) >= 0:
			i++
			run.WriteByte(text[i])
		case c == '*':
			flush()
			if len(p) == 0 || p[len(p)-1].kind != anyText {
				p = append(p, piece{kind: anyText})
			}
		case c == '?':
			flush()
			p = append(p, piece{kind: anyOne})
		default:
			run.WriteByte(c)
		}
	}
	flush()
	return p
}

func plain(text string) pattern {
	if text == "" {
		return nil
	}
	return pattern{{literal: text}}
}

// bytes is the text of a pattern without wildcards.
func (p pattern) bytes() ([]byte, error) {
	var out []byte
	for _, part := range p {
		if part.kind != literal {
			return nil, errors.New("wildcards cannot be encoded")
		}
		out = append(out, part.literal...)
	}
	return out, nil
}

func (p pattern) prefixed() pattern {
	if len(p) > 0 && p[0].kind == anyText {
		return p
	}
	return append(pattern{{kind: anyText}}, p...)
}

func (p pattern) suffixed() pattern {
	if len(p) > 0 && p[len(p)-1].kind == anyText {
		return p
	}
	return append(p[:len(p):len(p)], piece{kind: anyText})
}

// windash lets a dash or slash that begins an option be any of them.
func (p pattern) windash() pattern {
	var out pattern
	word := false // the character before is one of a word
	for _, part := range p {
		if part.kind != literal {
			out = append(out, part)
			word = false
			continue
		}
		start := 0
		for i, r := range part.literal {
			next, _ := utf8.DecodeRuneInString(part.literal[i+utf8.RuneLen(r):])
			if strings.ContainsRune(dashes, r) && !word && isWord(next) {
				if start < i {
					out = append(out, piece{literal: part.literal[start:i]})
				}
				out = append(out, piece{kind: dash})
				start = i + utf8.RuneLen(r)
			}
			word = isWord(r)
		}
		if start < len(part.literal) {
			out = append(out, piece{literal: part.literal[start:]})
		}
	}
	return out
}

func isWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) && r != utf8.RuneError
}

func (p pattern) folded() pattern {
	out := make(pattern, len(p))
	for i, part := range p {
		out[i] = piece{literal: strings.ToLower(part.literal), kind: part.kind}
	}
	return out
}

// match says whether the whole text is what the pattern describes. Only the
// last * is ever tried again, so time is at most the product of the lengths.
func (p pattern) match(text string) bool {
	i := 0
	star, from := -1, ""
	for {
		if i < len(p) && p[i].kind == anyText {
			if i == len(p)-1 {
				return true
			}
			star, from = i, text
			i++
			continue
		}
		rest, ok := text, i < len(p)
		if ok {
			rest, ok = p[i].take(text)
		}
		switch {
		case ok:
			text = rest
			i++
			continue
		case i == len(p) && text == "":
			return true
		case star < 0 || from == "":
			return false
		}
		_, size := utf8.DecodeRuneInString(from)
		from = from[size:]
		if next := p[star+1]; next.kind == literal { // straight to where it can go on
			at := strings.Index(from, next.literal)
			if at < 0 {
				return false
			}
			from = from[at:]
		}
		text, i = from, star+1
	}
}

func (p piece) take(text string) (rest string, ok bool) {
	if p.kind == literal {
		return strings.CutPrefix(text, p.literal)
	}
	r, size := utf8.DecodeRuneInString(text)
	if size == 0 || p.kind == dash && !strings.ContainsRune(dashes, r) {
		return text, false
	}
	return text[size:], true
}

// offsets are the three ways in which a text looks in Base64, by where it
// stands in what was encoded.
func offsets(raw []byte) []string {
	out := make([]string, 0, 3)
	first := []int{0, 2, 3}
	for n := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, n), raw...))
		cut := len(encoded)
		switch (len(raw) + n) % 3 {
		case 1:
			cut -= 3
		case 2:
			cut -= 2
		}
		if first[n] < cut {
			out = append(out, encoded[first[n]:cut])
		}
	}
	return out
}

// utf16 encodes a text in two bytes a character.
func utf16(raw []byte, big bool) []byte {
	var out []byte
	put := func(u uint16) {
		if big {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	for _, r := range string(raw) {
		if r >= 0x10000 {
			r -= 0x10000
			put(0xd800 + uint16(r>>10))   //nolint:gosec // ten bits
			put(0xdc00 + uint16(r&0x3ff)) //nolint:gosec // ten bits
			continue
		}
		put(uint16(r)) //nolint:gosec // below 0x10000
	}
	return out
}
