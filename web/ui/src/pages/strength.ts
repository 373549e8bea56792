// How hard a password is to guess, roughly and locally: nothing leaves the page.

export interface Check {
  text: string;
  ok: boolean;
}

const common = [
  "password",
  "passwort",
  "qwerty",
  "qwertz",
  "azerty",
  "letmein",
  "welcome",
  "admin",
  "iloveyou",
  "dragon",
  "monkey",
  "123456",
  "abc123",
  "111111",
  "changeme",
];

export function checks(value: string, name: string): Check[] {
  const lower = value.toLowerCase();
  return [
    { text: "At least 12 characters", ok: [...value].length >= 12 },
    {
      text: "Not one of the usual passwords, nor one repeated",
      ok: value !== "" && !common.some((c) => lower.includes(c)) && !/^(.{1,3})\1+$/.test(value),
    },
    {
      text: "Doesn’t contain your name or “cordon”",
      ok: value !== "" && !lower.includes("cordon") && !(name.length > 2 && lower.includes(name.toLowerCase())),
    },
  ];
}

/** Bits of a guesser who knows the kinds of characters and sees repeats. */
export function bits(value: string): number {
  const chars = [...value];
  let pool = 0;
  if (/[a-z]/.test(value)) pool += 26;
  if (/[A-Z]/.test(value)) pool += 26;
  if (/[0-9]/.test(value)) pool += 10;
  if (/[^a-zA-Z0-9]/.test(value)) pool += 24;
  let useful = 0;
  chars.forEach((c, i) => {
    const before = chars[i - 1];
    const step = before ? c.charCodeAt(0) - before.charCodeAt(0) : 9;
    useful += Math.abs(step) <= 1 ? 0.35 : 0.8;
  });
  return pool ? useful * Math.log2(pool) : 0;
}

export function strength(value: string): { score: number; word: string; advice: string } {
  const b = bits(value);
  const n = [...value].length;
  const score = b < 28 ? 1 : b < 45 ? 2 : b < 60 ? 3 : b < 80 ? 4 : 5;
  const word = ["", "Weak", "Weak", "Fair", "Strong", "Very strong"][score] ?? "";
  const advice =
    score < 3
      ? "Add more words; length helps more than signs."
      : `${n} characters; guessing it would take ${score === 3 ? "years" : "centuries"}.`;
  return { score, word, advice };
}
