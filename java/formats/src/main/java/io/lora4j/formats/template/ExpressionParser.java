package io.lora4j.formats.template;

import io.lora4j.formats.template.Node.Arguments;
import io.lora4j.formats.template.Node.Expression;
import io.lora4j.formats.template.Token.Kind;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Parses expressions; one method for each level of precedence, loosest first. */
final class ExpressionParser {
    private static final Set<String> COMPARISONS = Set.of("==", "!=", "<", "<=", ">", ">=");
    private static final List<Set<String>> BINARY =
            List.of(Set.of("+", "-"), Set.of("~"), Set.of("*", "/", "//", "%"), Set.of("**"));
    private static final Set<String> RESERVED = Set.of("if else elif and or not in is for set recursive".split(" "));

    private final TokenStream tokens;
    /** Depth of if tags: inside, Jinja lets unknown filters and tests pass until they are reached. */
    private int branches;

    ExpressionParser(TokenStream tokens) {
        this.tokens = tokens;
    }

    void enterBranch() {
        branches++;
    }

    void leaveBranch() {
        branches--;
    }

    /** An expression, or several with commas between: a tuple. */
    Expression tuple() {
        int line = tokens.line();
        Expression first = expression();
        if (!tokens.current().isOperator(",")) {
            return first;
        }
        List<Expression> items = new ArrayList<>(List.of(first));
        while (tokens.skipOperator(",")) {
            Kind kind = tokens.current().kind();
            if (kind == Kind.VARIABLE_END
                    || kind == Kind.BLOCK_END
                    || tokens.current().isOperator(")")) {
                break;
            }
            items.add(expression());
        }
        return new Node.TupleLiteral(line, items);
    }

    Expression expression() {
        tokens.enter();
        Expression value = or();
        while (tokens.current().isName("if")) {
            int line = tokens.next().line();
            Expression condition = or();
            Expression otherwise = tokens.skipName("else") ? expression() : null;
            value = new Node.Conditional(line, condition, value, otherwise);
        }
        tokens.leave();
        return value;
    }

    /** An expression without a trailing {@code if}, which in a for tag begins the loop's condition. */
    Expression withoutCondition() {
        return or();
    }

    private Expression or() {
        Expression left = and();
        while (tokens.current().isName("or")) {
            int line = tokens.next().line();
            left = new Node.Or(line, left, and());
        }
        return left;
    }

    private Expression and() {
        Expression left = not();
        while (tokens.current().isName("and")) {
            int line = tokens.next().line();
            left = new Node.And(line, left, not());
        }
        return left;
    }

    private Expression not() {
        if (tokens.current().isName("not")) {
            int line = tokens.next().line();
            tokens.enter();
            Expression operand = not();
            tokens.leave();
            return new Node.Unary(line, "not", operand);
        }
        return comparison();
    }

    private Expression comparison() {
        int line = tokens.line();
        Expression first = binary(0);
        List<Node.Comparison> rest = new ArrayList<>();
        while (true) {
            Token token = tokens.current();
            if (token.kind() == Kind.OPERATOR && COMPARISONS.contains(token.value())) {
                tokens.next();
                rest.add(new Node.Comparison(token.value(), binary(0)));
            } else if (token.isName("in")) {
                tokens.next();
                rest.add(new Node.Comparison("in", binary(0)));
            } else if (token.isName("not") && tokens.lookAhead().isName("in")) {
                tokens.next();
                tokens.next();
                rest.add(new Node.Comparison("not in", binary(0)));
            } else {
                return rest.isEmpty() ? first : new Node.Comparisons(line, first, rest);
            }
        }
    }

    /** The operators between two values, all left-associative; {@code level} counts from the loosest. */
    private Expression binary(int level) {
        if (level == BINARY.size()) {
            return unary(true);
        }
        Expression left = binary(level + 1);
        while (tokens.current().kind() == Kind.OPERATOR
                && BINARY.get(level).contains(tokens.current().value())) {
            Token operator = tokens.next();
            left = new Node.Binary(operator.line(), operator.value(), left, binary(level + 1));
        }
        return left;
    }

    private Expression unary(boolean filters) {
        tokens.enter();
        Token token = tokens.current();
        Expression value;
        if (token.isOperator("-") || token.isOperator("+")) {
            tokens.next();
            value = new Node.Unary(token.line(), token.value(), unary(false));
        } else {
            value = primary();
        }
        value = postfix(value);
        value = filters ? filtersAndTests(value) : value;
        tokens.leave();
        return value;
    }

    private Expression primary() {
        Token token = tokens.current();
        return switch (token.kind()) {
            case NAME -> name(tokens.next());
            case STRING -> {
                StringBuilder joined = new StringBuilder();
                while (tokens.current().kind() == Kind.STRING) {
                    joined.append(tokens.next().value());
                }
                yield new Node.Constant(token.line(), Text.of(joined.toString()));
            }
            case INTEGER -> new Node.Constant(tokens.next().line(), integer(token));
            case FLOAT -> new Node.Constant(tokens.next().line(), Double.valueOf(token.value()));
            case OPERATOR ->
                switch (token.value()) {
                    case "(" -> parenthesis();
                    case "[" -> list();
                    case "{" -> dict();
                    default -> throw tokens.unexpected("an expression");
                };
            default -> throw tokens.unexpected("an expression");
        };
    }

    private static Long integer(Token token) {
        try {
            return Long.valueOf(token.value());
        } catch (NumberFormatException e) {
            throw new TemplateError(token.line(), "integer " + token.value() + " is too large");
        }
    }

    private Expression name(Token token) {
        return switch (token.value()) {
            case "true", "True" -> new Node.Constant(token.line(), true);
            case "false", "False" -> new Node.Constant(token.line(), false);
            case "none", "None" -> new Node.Constant(token.line(), None.NONE);
            default -> {
                if (RESERVED.contains(token.value())) {
                    throw new TemplateError(
                            token.line(), "found '" + token.value() + "' where an expression was expected");
                }
                yield new Node.Name(token.line(), token.value());
            }
        };
    }

    private Expression parenthesis() {
        int line = tokens.next().line();
        if (tokens.skipOperator(")")) {
            return new Node.TupleLiteral(line, List.of());
        }
        Expression value = tuple();
        tokens.expectOperator(")");
        return value;
    }

    private Expression list() {
        int line = tokens.next().line();
        List<Expression> items = new ArrayList<>();
        while (!tokens.skipOperator("]")) {
            if (!items.isEmpty()) {
                tokens.expectOperator(",");
                if (tokens.skipOperator("]")) {
                    break;
                }
            }
            items.add(expression());
        }
        return new Node.ListLiteral(line, items);
    }

    private Expression dict() {
        int line = tokens.next().line();
        List<Node.DictEntry> entries = new ArrayList<>();
        while (!tokens.skipOperator("}")) {
            if (!entries.isEmpty()) {
                tokens.expectOperator(",");
                if (tokens.skipOperator("}")) {
                    break;
                }
            }
            Expression key = expression();
            tokens.expectOperator(":");
            entries.add(new Node.DictEntry(key, expression()));
        }
        return new Node.DictLiteral(line, entries);
    }

    /** Attributes, items and calls. */
    private Expression postfix(Expression start) {
        Expression value = start;
        while (true) {
            Token token = tokens.current();
            if (token.isOperator(".")) {
                tokens.next();
                value = attribute(value, token.line());
            } else if (token.isOperator("[")) {
                tokens.next();
                value = subscript(value, token.line());
            } else if (token.isOperator("(")) {
                value = new Node.Call(token.line(), value, arguments());
            } else {
                return value;
            }
        }
    }

    private Expression attribute(Expression object, int line) {
        Token token = tokens.next();
        return switch (token.kind()) {
            case NAME -> new Node.Attribute(line, object, token.value());
            case INTEGER -> new Node.Item(line, object, new Node.Constant(line, integer(token)));
            default ->
                throw new TemplateError(line, "found " + token.describe() + " where a name was expected after '.'");
        };
    }

    private Expression subscript(Expression object, int line) {
        Expression start = tokens.current().isOperator(":") ? null : expression();
        if (!tokens.current().isOperator(":")) {
            if (start == null) {
                throw tokens.unexpected("an index");
            }
            if (tokens.current().isOperator(",")) {
                throw new TemplateError(line, "subscripts with several indices are not supported");
            }
            tokens.expectOperator("]");
            return new Node.Item(line, object, start);
        }
        tokens.next();
        Expression stop = sliceBound();
        Expression step = tokens.skipOperator(":") ? sliceBound() : null;
        tokens.expectOperator("]");
        return new Node.Slice(line, object, start, stop, step);
    }

    private @Nullable Expression sliceBound() {
        return tokens.current().isOperator(":") || tokens.current().isOperator("]") ? null : expression();
    }

    Arguments arguments() {
        tokens.expectOperator("(");
        List<Expression> positional = new ArrayList<>();
        Map<String, Expression> named = new LinkedHashMap<>();
        Expression sequence = null;
        Expression mapping = null;
        boolean first = true;
        while (!tokens.skipOperator(")")) {
            if (!first) {
                tokens.expectOperator(",");
                if (tokens.skipOperator(")")) {
                    break;
                }
            }
            first = false;
            Token token = tokens.current();
            if (mapping != null || (sequence != null && !token.isOperator("**"))) {
                throw tokens.unexpected("')'");
            }
            if (tokens.skipOperator("*")) {
                sequence = expression();
            } else if (tokens.skipOperator("**")) {
                mapping = expression();
            } else if (token.kind() == Kind.NAME && tokens.lookAhead().isOperator("=")) {
                tokens.next();
                tokens.next();
                named.put(token.value(), expression());
            } else if (!named.isEmpty()) {
                throw tokens.unexpected("a named argument");
            } else {
                positional.add(expression());
            }
        }
        return new Arguments(positional, named, sequence, mapping);
    }

    private Expression filtersAndTests(Expression start) {
        Expression value = start;
        while (true) {
            Token token = tokens.current();
            if (tokens.skipOperator("|")) {
                value = filter(value);
            } else if (token.isName("is")) {
                value = test(value);
            } else if (token.isOperator("(")) {
                value = new Node.Call(token.line(), value, arguments());
            } else {
                return value;
            }
        }
    }

    Node.Filter filter(@Nullable Expression input) {
        int line = tokens.line();
        String name = tokens.expectName();
        if (branches == 0) {
            Filters.requireKnown(name, line);
        }
        Arguments arguments = tokens.current().isOperator("(") ? arguments() : Arguments.NONE;
        return new Node.Filter(line, input, name, arguments);
    }

    private Expression test(Expression input) {
        int line = tokens.next().line();
        boolean negated = tokens.skipName("not");
        String name = tokens.expectName();
        if (branches == 0) {
            Tests.requireKnown(name, line);
        }
        List<Expression> arguments = List.of();
        Token token = tokens.current();
        if (token.isOperator("(")) {
            Arguments parsed = arguments();
            if (!parsed.named().isEmpty() || parsed.sequence() != null || parsed.mapping() != null) {
                throw new TemplateError(line, "named or unpacked arguments of test '" + name + "' are not supported");
            }
            arguments = parsed.positional();
        } else if (beginsArgument(token)) {
            arguments = List.of(postfix(primary()));
        }
        return new Node.Test(line, input, name, arguments, negated);
    }

    /** A test takes one argument without parentheses: {@code x is equalto 'y'}. */
    private static boolean beginsArgument(Token token) {
        return switch (token.kind()) {
            case STRING, INTEGER, FLOAT -> true;
            case NAME -> !RESERVED.contains(token.value());
            case OPERATOR -> token.isOperator("[") || token.isOperator("{");
            default -> false;
        };
    }
}
