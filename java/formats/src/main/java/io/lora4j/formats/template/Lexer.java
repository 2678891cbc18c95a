package io.lora4j.formats.template;

import io.lora4j.formats.template.Token.Kind;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Splits a template into tokens with the whitespace rules of transformers' environment: {@code trim_blocks} drops the newline
 * after a block tag or comment, {@code lstrip_blocks} the blanks between the start of a line and one, {@code -} strips all
 * whitespace on its side, {@code +} switches the rule off, and one newline at the end of the template is dropped.
 */
final class Lexer {
    /** Longest first, so that the first that fits is the right one. */
    private static final List<String> OPERATORS =
            List.of("// ** == != >= <= + - / * % ~ [ ] ( ) { } > < = . : | , ;".split(" "));

    private final String source;
    private final List<Token> tokens = new ArrayList<>();
    private int at;
    private int line = 1;
    /** Whether the text at the cursor begins a line, also when the newline before it was trimmed. */
    private boolean lineStart = true;

    private Lexer(String source) {
        this.source = source;
    }

    static List<Token> tokenize(String source) {
        String normalized = source.replace("\r\n", "\n").replace('\r', '\n');
        if (normalized.endsWith("\n")) {
            normalized = normalized.substring(0, normalized.length() - 1);
        }
        Lexer lexer = new Lexer(normalized);
        lexer.run();
        return lexer.tokens;
    }

    private void run() {
        while (at < source.length()) {
            int tag = nextTag();
            if (tag < 0) {
                addData(source.substring(at));
                advance(source.length());
                break;
            }
            char kind = source.charAt(tag + 1);
            char sign = tag + 2 < source.length() ? source.charAt(tag + 2) : ' ';
            boolean signed = sign == '-' || (sign == '+' && kind != '{');
            addData(beforeTag(source.substring(at, tag), kind, signed ? sign : ' '));
            advance(tag);
            int begin = line;
            advance(tag + (signed ? 3 : 2));
            switch (kind) {
                case '#' -> comment(begin);
                case '{' -> {
                    tokens.add(new Token(Kind.VARIABLE_BEGIN, "{{", begin));
                    expression("}}", begin);
                }
                default -> block(begin);
            }
        }
        tokens.add(new Token(Kind.END, "", line));
    }

    /** Returns the index of the next opening delimiter, or -1. */
    private int nextTag() {
        for (int i = source.indexOf('{', at); i >= 0 && i + 1 < source.length(); i = source.indexOf('{', i + 1)) {
            if ("{%#".indexOf(source.charAt(i + 1)) >= 0) {
                return i;
            }
        }
        return -1;
    }

    private String beforeTag(String text, char kind, char sign) {
        if (sign == '-') {
            return Strings.strip(Text.of(text), null, false, true).toString();
        }
        if (sign != '+' && kind != '{') {
            int start = text.lastIndexOf('\n') + 1;
            boolean blank = text.substring(start).chars().allMatch(Strings::isSpace);
            if (blank && (start > 0 || lineStart)) {
                return text.substring(0, start);
            }
        }
        return text;
    }

    private void addData(String text) {
        if (!text.isEmpty()) {
            tokens.add(new Token(Kind.DATA, text, line));
        }
    }

    /** Moves the cursor forward and counts lines. */
    private void advance(int to) {
        for (int i = at; i < to; i++) {
            if (source.charAt(i) == '\n') {
                line++;
            }
        }
        if (to > at) {
            lineStart = source.charAt(to - 1) == '\n';
        }
        at = to;
    }

    /** Moves over a closing delimiter at {@code end} (its sign included) and what its sign says. */
    private void close(int end, int length, char sign, boolean trims) {
        advance(end + length);
        if (sign == '-') {
            int to = at;
            while (to < source.length() && Strings.isSpace(source.charAt(to))) {
                to++;
            }
            advance(to);
        } else if (sign != '+' && trims && at < source.length() && source.charAt(at) == '\n') {
            advance(at + 1);
        }
    }

    private void comment(int begin) {
        int end = source.indexOf("#}", at);
        if (end < 0) {
            throw new TemplateError(begin, "comment is not closed; expected '#}'");
        }
        char sign = end > at ? source.charAt(end - 1) : ' ';
        close(end, 2, sign, true);
    }

    private void block(int begin) {
        int name = at;
        while (name < source.length() && Strings.isSpace(source.charAt(name))) {
            name++;
        }
        if (source.startsWith("raw", name)) {
            int end = skipSpaces(name + 3);
            boolean minus = source.startsWith("-%}", end);
            if (minus || source.startsWith("%}", end)) {
                close(end, minus ? 3 : 2, minus ? '-' : '+', false);
                raw(begin);
                return;
            }
        }
        tokens.add(new Token(Kind.BLOCK_BEGIN, "{%", begin));
        expression("%}", begin);
    }

    private int skipSpaces(int from) {
        int i = from;
        while (i < source.length() && Strings.isSpace(source.charAt(i))) {
            i++;
        }
        return i;
    }

    private void raw(int begin) {
        for (int tag = source.indexOf("{%", at); tag >= 0; tag = source.indexOf("{%", tag + 2)) {
            char sign = tag + 2 < source.length() ? source.charAt(tag + 2) : ' ';
            int name = skipSpaces(tag + (sign == '-' || sign == '+' ? 3 : 2));
            if (!source.startsWith("endraw", name)) {
                continue;
            }
            int end = skipSpaces(name + 6);
            char endSign = end < source.length() ? source.charAt(end) : ' ';
            boolean signed = endSign == '-' || endSign == '+';
            if (source.startsWith("%}", signed ? end + 1 : end)) {
                addData(beforeTag(source.substring(at, tag), '%', sign));
                close(end, signed ? 3 : 2, endSign, true);
                return;
            }
        }
        throw new TemplateError(begin, "raw block is not closed; expected '{% endraw %}'");
    }

    /** Reads tokens up to the closing delimiter; inside brackets the delimiter's characters are operators. */
    private void expression(String closing, int begin) {
        Deque<Character> open = new ArrayDeque<>();
        while (at < source.length()) {
            char c = source.charAt(at);
            if (Strings.isSpace(c)) {
                advance(at + 1);
                continue;
            }
            if (open.isEmpty()) {
                boolean signed = (c == '-' || (c == '+' && closing.equals("%}"))) && source.startsWith(closing, at + 1);
                if (signed || source.startsWith(closing, at)) {
                    Kind kind = closing.equals("%}") ? Kind.BLOCK_END : Kind.VARIABLE_END;
                    tokens.add(new Token(kind, closing, line));
                    close(at, signed ? 3 : 2, signed ? c : ' ', kind == Kind.BLOCK_END);
                    return;
                }
            }
            if (c == '"' || c == '\'') {
                string(c);
            } else if (c >= '0' && c <= '9') {
                number();
            } else if (Character.isUnicodeIdentifierStart(c) || c == '_') {
                name();
            } else {
                operator(open);
            }
        }
        throw new TemplateError(begin, "tag is not closed; expected '" + closing + "'");
    }

    private void name() {
        int end = at;
        while (end < source.length()
                && (Character.isUnicodeIdentifierPart(source.charAt(end)) || source.charAt(end) == '_')) {
            end++;
        }
        tokens.add(new Token(Kind.NAME, source.substring(at, end), line));
        advance(end);
    }

    private void number() {
        int end = digits(at);
        boolean fraction = end + 1 < source.length() && source.charAt(end) == '.' && isDigit(source.charAt(end + 1));
        if (fraction) {
            end = digits(end + 1);
        }
        int exponent = end;
        if (exponent < source.length() && (source.charAt(exponent) == 'e' || source.charAt(exponent) == 'E')) {
            int sign = exponent + 1;
            boolean signed = sign < source.length() && (source.charAt(sign) == '+' || source.charAt(sign) == '-');
            int first = signed ? sign + 1 : sign;
            if (first < source.length() && isDigit(source.charAt(first))) {
                end = digits(first);
                fraction = true;
            }
        }
        if (end < source.length() && Character.isLetter(source.charAt(end))) {
            throw new TemplateError(
                    line, "number '" + source.substring(at, end + 1) + "…' is not supported; write it in decimal");
        }
        String digits = source.substring(at, end).replace("_", "");
        tokens.add(new Token(fraction ? Kind.FLOAT : Kind.INTEGER, digits, line));
        advance(end);
    }

    private int digits(int from) {
        int end = from;
        while (end < source.length() && (isDigit(source.charAt(end)) || source.charAt(end) == '_')) {
            end++;
        }
        return end;
    }

    private static boolean isDigit(char c) {
        return c >= '0' && c <= '9';
    }

    private void string(char quote) {
        int end = at + 1;
        while (end < source.length() && source.charAt(end) != quote) {
            end += source.charAt(end) == '\\' ? 2 : 1;
        }
        if (end >= source.length()) {
            throw new TemplateError(line, "string is not closed; expected " + quote);
        }
        String value = Strings.unescape(source.substring(at + 1, end), line);
        tokens.add(new Token(Kind.STRING, value, line));
        advance(end + 1);
    }

    private void operator(Deque<Character> open) {
        for (String operator : OPERATORS) {
            if (source.startsWith(operator, at)) {
                char c = operator.charAt(0);
                if ("([{".indexOf(c) >= 0) {
                    open.push(c);
                } else if (")]}".indexOf(c) >= 0) {
                    char expected = c == ')' ? '(' : c == ']' ? '[' : '{';
                    if (open.isEmpty() || open.pop() != expected) {
                        throw new TemplateError(line, "unexpected '" + c + "'");
                    }
                }
                tokens.add(new Token(Kind.OPERATOR, operator, line));
                advance(at + operator.length());
                return;
            }
        }
        throw new TemplateError(line, "unexpected character '" + Character.toString(source.codePointAt(at)) + "'");
    }
}
