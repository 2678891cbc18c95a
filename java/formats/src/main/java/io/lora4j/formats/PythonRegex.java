package io.lora4j.formats;

import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * A regular expression of Python's {@code re}, as PEFT configs hold them, run by {@code java.util.regex}. What means the same
 * in both passes, what is only spelled differently is translated, and what Java lacks or reads differently is refused by name.
 */
final class PythonRegex {
    /** Characters looked at before a match is given up: patterns come from files, and some need exponential time. */
    private static final int MAX_STEPS = 2_000_000;

    /** Java's matcher calls itself for every part of an expression: longer and deeper ones could overflow the stack. */
    private static final int MAX_LENGTH = 4096;

    private static final int MAX_DEPTH = 100;

    private static final String SAME_ESCAPES = "dDwWsSbBAnrtfa";

    private final String source;
    private final Pattern pattern;

    private PythonRegex(String source, Pattern pattern) {
        this.source = source;
        this.pattern = pattern;
    }

    /**
     * Translates an expression.
     *
     * @param where begins the message, for example the file and the field
     * @throws FormatException if it is not valid or has no equivalent
     */
    static PythonRegex compile(String source, String where) throws FormatException {
        if (source.length() > MAX_LENGTH) {
            throw new FormatException(where + ": regular expression \"" + source.substring(0, 80) + "…\" has "
                    + source.length() + " characters; expected at most " + MAX_LENGTH + ": list the module names");
        }
        try {
            return new PythonRegex(source, Pattern.compile(new Translator(source, where).translate()));
        } catch (PatternSyntaxException e) {
            throw new FormatException(
                    where + ": regular expression \"" + source + "\" is not valid: " + e.getDescription(), e);
        }
    }

    /** As {@code re.fullmatch(pattern, text) is not None}. */
    boolean fullMatch(String text) {
        return matcher(text).matches();
    }

    /** Returns a matcher whose {@code lookingAt} is {@code re.match(pattern, text)}. */
    Matcher matcher(String text) {
        return pattern.matcher(new Limited(text, source));
    }

    /** A string that counts how often it is looked at. */
    private static final class Limited implements CharSequence {
        private final String text;
        private final String source;
        private int steps;

        Limited(String text, String source) {
            this.text = text;
            this.source = source;
        }

        @Override
        public int length() {
            return text.length();
        }

        @Override
        public char charAt(int index) {
            if (++steps > MAX_STEPS) {
                throw new IllegalArgumentException("regular expression \"" + source + "\" takes too long on \"" + text
                        + "\"; write it without nested repetition");
            }
            return text.charAt(index);
        }

        @Override
        public CharSequence subSequence(int start, int end) {
            return text.substring(start, end);
        }

        @Override
        public String toString() {
            return text;
        }
    }

    /** One pass over the expression. */
    private static final class Translator {
        private final String source;
        private final String where;
        private final StringBuilder out = new StringBuilder();
        private int at;
        private int depth;

        Translator(String source, String where) {
            this.source = source;
            this.where = where;
        }

        String translate() throws FormatException {
            while (at < source.length()) {
                char c = source.charAt(at);
                switch (c) {
                    case '\\' -> escape(false);
                    case '[' -> charClass();
                    case '(' -> group();
                    case '{' -> brace();
                    case ')' -> {
                        out.append(c);
                        at++;
                        depth--;
                    }
                    default -> {
                        out.append(c);
                        at++;
                    }
                }
            }
            return out.toString();
        }

        private FormatException refuse(String what) {
            return new FormatException(where + ": regular expression \"" + source + "\" uses " + what
                    + ", which has no equivalent in Java; write it differently or list the module names");
        }

        private void escape(boolean inClass) throws FormatException {
            if (at + 1 >= source.length()) {
                throw new FormatException(where + ": regular expression \"" + source + "\" ends in a backslash");
            }
            char c = source.charAt(at + 1);
            boolean digit = c >= '1' && c <= '9';
            boolean letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            if (c == 'Z' && !inClass) {
                out.append("\\z");
                at += 2;
            } else if (c == 'x' || c == 'u') {
                int digits = c == 'x' ? 2 : 4;
                String hex = source.substring(at + 2, Math.min(at + 2 + digits, source.length()));
                if (hex.length() < digits || !hex.chars().allMatch(h -> Character.digit(h, 16) >= 0)) {
                    throw refuse("\\" + c + hex);
                }
                out.append('\\').append(c).append(hex);
                at += 2 + digits;
            } else if ((letter && (SAME_ESCAPES.indexOf(c) < 0 || (inClass && "bBA".indexOf(c) >= 0)))
                    || c == '0'
                    || (digit && inClass)) {
                throw refuse("\\" + c);
            } else {
                out.append('\\').append(c);
                at += 2;
            }
        }

        private void charClass() throws FormatException {
            out.append('[');
            at++;
            if (at < source.length() && source.charAt(at) == '^') {
                out.append('^');
                at++;
            }
            boolean first = true;
            while (at < source.length()) {
                char c = source.charAt(at);
                if (c == ']' && !first) {
                    out.append(c);
                    at++;
                    return;
                }
                if (c == '\\') {
                    escape(true);
                } else {
                    // Java reads [ and && inside a class as set operations, Python as themselves.
                    if (c == '[' || c == ']' || c == '&') {
                        out.append('\\');
                    }
                    out.append(c);
                    at++;
                }
                first = false;
            }
            throw new FormatException(where + ": regular expression \"" + source + "\" has an unterminated [");
        }

        private void group() throws FormatException {
            if (++depth > MAX_DEPTH) {
                throw new FormatException(where + ": regular expression \"" + source + "\" nests groups deeper than "
                        + MAX_DEPTH + "; write it flatter or list the module names");
            }
            if (source.startsWith("(?P<", at)) {
                out.append("(?<");
                at += 4;
                int end = source.indexOf('>', at);
                String name = end < 0 ? "" : source.substring(at, end);
                if (!name.matches("[A-Za-z][A-Za-z0-9]*")) {
                    throw refuse("a group named \"" + name + "\"");
                }
            } else if (source.startsWith("(?P", at) || source.startsWith("(?(", at) || source.startsWith("(?#", at)) {
                throw refuse("\"" + source.substring(at, at + 3) + "\"");
            } else if (source.startsWith("(?", at)) {
                // The groups that both languages read alike: (?: (?= (?! (?<= (?<! (?>
                boolean same = (at + 2 < source.length() && ":=!>".indexOf(source.charAt(at + 2)) >= 0)
                        || source.startsWith("(?<=", at)
                        || source.startsWith("(?<!", at)
                        || source.startsWith("(?i)", at);
                if (!same) {
                    throw refuse("\"" + source.substring(at, Math.min(at + 4, source.length())) + "\"");
                }
                out.append("(?");
                at += 2;
            } else {
                out.append('(');
                at++;
            }
        }

        /** A brace repeats only in the forms {n}, {n,}, {,m} and {n,m}; otherwise Python takes it as itself. */
        private void brace() {
            int end = source.indexOf('}', at);
            String inside = end < 0 ? "" : source.substring(at + 1, end);
            if (inside.matches("\\d+(,\\d*)?|,\\d+")) {
                out.append('{')
                        .append(inside.startsWith(",") ? "0" + inside : inside)
                        .append('}');
                at = end + 1;
            } else {
                out.append("\\{");
                at++;
            }
        }
    }
}
