package io.lora4j.formats.template;

import io.lora4j.formats.template.Token.Kind;
import java.util.List;

/** A cursor over the tokens of a template. */
final class TokenStream {
    private static final int MAX_DEPTH = 150;

    private final List<Token> tokens;
    private int at;
    private int depth;

    TokenStream(List<Token> tokens) {
        this.tokens = tokens;
    }

    Token current() {
        return tokens.get(at);
    }

    Token lookAhead() {
        return tokens.get(Math.min(at + 1, tokens.size() - 1));
    }

    Token next() {
        Token token = tokens.get(at);
        at = Math.min(at + 1, tokens.size() - 1);
        return token;
    }

    int line() {
        return current().line();
    }

    boolean skipOperator(String operator) {
        return skip(current().isOperator(operator));
    }

    boolean skipName(String name) {
        return skip(current().isName(name));
    }

    private boolean skip(boolean matches) {
        if (matches) {
            next();
        }
        return matches;
    }

    void expectOperator(String operator) {
        if (!skipOperator(operator)) {
            throw unexpected("'" + operator + "'");
        }
    }

    Token expect(Kind kind, String description) {
        if (current().kind() != kind) {
            throw unexpected(description);
        }
        return next();
    }

    String expectName() {
        return expect(Kind.NAME, "a name").value();
    }

    TemplateError unexpected(String expected) {
        return new TemplateError(line(), "found " + current().describe() + " where " + expected + " was expected");
    }

    /** Counts a level of nesting, so that no template can exhaust the stack. */
    void enter() {
        if (++depth > MAX_DEPTH) {
            throw new TemplateError(line(), "nested deeper than " + MAX_DEPTH + " levels");
        }
    }

    void leave() {
        depth--;
    }
}
