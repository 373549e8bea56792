package codec

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds the nesting of values that are skipped.
const maxDepth = 32

// scanner reads JSON forward, without building a tree. Positions in its
// errors count bytes from 1.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is no space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// unexpected says that the next byte is not what the grammar wants.
func (s *scanner) unexpected(want string) *Rejection {
	if s.pos >= len(s.data) {
		return reject(Malformed, "JSON is cut off after byte %d, expected %s", len(s.data), want)
	}
	return reject(Malformed, "unexpected %q at byte %d, expected %s", s.data[s.pos], s.pos+1, want)
}

func (s *scanner) expect(c byte, want string) *Rejection {
	if s.peek() != c || s.pos >= len(s.data) {
		return s.unexpected(want)
	}
	s.pos++
	return nil
}

// next steps to the next element of an object or array whose opening bracket
// was read: false when closing was there.
func (s *scanner) next(first bool, closing byte, want string) (bool, *Rejection) {
	switch c := s.peek(); {
	case c == closing:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		if s.peek() == closing {
			return false, s.unexpected(want)
		}
		return true, nil
	}
	return false, s.unexpected("',' or '" + string(closing) + "'")
}

// key reads an object key and its colon.
func (s *scanner) key() ([]byte, *Rejection) {
	key, rej := s.text("a field name")
	if rej != nil {
		return nil, rej
	}
	return key, s.expect(':', "':'")
}

// text reads a string. The result aliases the input unless the string has
// escapes or invalid UTF-8, which becomes U+FFFD.
func (s *scanner) text(want string) ([]byte, *Rejection) {
	if s.peek() != '"' {
		return nil, s.unexpected(want)
	}
	start := s.pos
	plain := true
	for i := start + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			raw := s.data[start : i+1]
			s.pos = i + 1
			if plain {
				return raw[1 : len(raw)-1], nil
			}
			var out string
			if err := json.Unmarshal(raw, &out); err != nil {
				return nil, reject(Malformed, "text at byte %d is not a JSON string: %v", start+1, err)
			}
			return []byte(out), nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, reject(Malformed, "control character 0x%02x in the text at byte %d", c, i+1)
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, reject(Malformed, "JSON is cut off after byte %d, inside the text that starts at byte %d", len(s.data), start+1)
}

// number returns the bytes of a number that follows JSON's grammar.
func (s *scanner) number(what string) ([]byte, *Rejection) {
	s.space()
	start, i := s.pos, s.pos
	digits := func() bool {
		from := i
		for i < len(s.data) && s.data[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(s.data) && s.data[i] == '-' {
		i++
	}
	lead := i
	ok := digits() && (s.data[lead] != '0' || i == lead+1)
	if ok && i < len(s.data) && s.data[i] == '.' {
		i++
		ok = digits()
	}
	if ok && i < len(s.data) && (s.data[i] == 'e' || s.data[i] == 'E') {
		i++
		if i < len(s.data) && (s.data[i] == '+' || s.data[i] == '-') {
			i++
		}
		ok = digits()
	}
	if !ok {
		return nil, s.notNumber(start, i, what)
	}
	s.pos = i
	return s.data[start:i], nil
}

// notNumber says what stands where a number should.
func (s *scanner) notNumber(start, stop int, what string) *Rejection {
	if start >= len(s.data) || stop >= len(s.data) {
		return reject(Malformed, "JSON is cut off after byte %d, inside %s", len(s.data), what)
	}
	rest := s.data[start:]
	for _, word := range []string{"NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "Inf", "-Inf", "-NaN", "-nan"} {
		if bytes.HasPrefix(rest, []byte(word)) {
			return reject(NotFinite, "%s is %s at byte %d", what, word, start+1)
		}
	}
	switch c := rest[0]; {
	case c == '"':
		if text, rej := s.text(what); rej != nil {
			return rej
		} else if notFinite(string(text)) {
			return reject(NotFinite, "%s is %q at byte %d", what, text, start+1)
		}
		return reject(Mistyped, "%s at byte %d is a text, expected a number", what, start+1)
	case c == '{':
		return reject(Mistyped, "%s at byte %d is an object, expected a number", what, start+1)
	case c == '[':
		return reject(Mistyped, "%s at byte %d is an array, expected a number", what, start+1)
	case bytes.HasPrefix(rest, []byte("null")), bytes.HasPrefix(rest, []byte("true")), bytes.HasPrefix(rest, []byte("false")):
		return reject(Mistyped, "%s at byte %d is not a number", what, start+1)
	}
	return reject(Malformed, "%s at byte %d is not a JSON number: unexpected %q at byte %d", what, start+1, s.data[stop], stop+1)
}

func notFinite(text string) bool {
	v, err := strconv.ParseFloat(text, 64)
	return err == nil && v-v != 0
}

// skip steps over any value.
func (s *scanner) skip(depth int) *Rejection {
	if depth > maxDepth {
		return reject(TooMany, "JSON is nested deeper than %d at byte %d", maxDepth, s.pos+1)
	}
	switch c := s.peek(); {
	case c == '"':
		_, rej := s.text("a text")
		return rej
	case c == '{' || c == '[':
		s.pos++
		closing := c + 2 // '{'+2 = '}', '['+2 = ']'
		for first := true; ; first = false {
			more, rej := s.next(first, closing, "a value")
			if rej != nil || !more {
				return rej
			}
			if c == '{' {
				if _, rej := s.key(); rej != nil {
					return rej
				}
			}
			if rej := s.skip(depth + 1); rej != nil {
				return rej
			}
		}
	case c == '-' || c-'0' <= 9:
		_, rej := s.number("a number")
		return rej
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
			s.pos += len(word)
			return nil
		}
	}
	return s.unexpected("a value")
}

// end refuses anything but space behind the value.
func (s *scanner) end() *Rejection {
	if s.space(); s.pos < len(s.data) {
		return reject(Malformed, "more data after the end of the message at byte %d", s.pos+1)
	}
	return nil
}
