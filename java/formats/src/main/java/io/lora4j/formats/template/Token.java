package io.lora4j.formats.template;

/**
 * A token of a template.
 *
 * @param kind what it is
 * @param value its text; of a string literal, what it stands for
 * @param line where it begins, from 1
 */
record Token(Kind kind, String value, int line) {
    enum Kind {
        DATA,
        BLOCK_BEGIN,
        BLOCK_END,
        VARIABLE_BEGIN,
        VARIABLE_END,
        NAME,
        STRING,
        INTEGER,
        FLOAT,
        OPERATOR,
        END
    }

    boolean is(Kind expected, String text) {
        return kind == expected && value.equals(text);
    }

    boolean isName(String name) {
        return is(Kind.NAME, name);
    }

    boolean isOperator(String operator) {
        return is(Kind.OPERATOR, operator);
    }

    /** Returns what to call it in a message. */
    String describe() {
        return switch (kind) {
            case END -> "the end of the template";
            case DATA -> "text";
            case BLOCK_END -> "'%}'";
            case VARIABLE_END -> "'}}'";
            default -> "'" + value + "'";
        };
    }
}
