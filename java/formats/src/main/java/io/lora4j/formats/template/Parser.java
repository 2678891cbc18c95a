package io.lora4j.formats.template;

import io.lora4j.formats.template.Node.Expression;
import io.lora4j.formats.template.Node.Statement;
import io.lora4j.formats.template.Token.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Parses the tags of a template; what the subset lacks is refused by name with its line. */
final class Parser {
    private static final Set<String> UNSUPPORTED =
            Set.of("block extends include import from call filter with autoescape do trans debug".split(" "));

    private final TokenStream tokens;
    private final ExpressionParser expressions;
    private int loops;
    /** The tag name that ended the last body. */
    private String end = "";

    private Parser(TokenStream tokens) {
        this.tokens = tokens;
        this.expressions = new ExpressionParser(tokens);
    }

    static List<Statement> parse(String source) {
        Parser parser = new Parser(new TokenStream(Lexer.tokenize(source)));
        List<Statement> body = parser.statements(Set.of());
        if (parser.tokens.current().kind() != Kind.END) {
            throw parser.tokens.unexpected("text or a tag");
        }
        return body;
    }

    /** Parses up to a tag that begins with one of {@code ends}; the cursor then stands on that name. */
    private List<Statement> statements(Set<String> ends) {
        tokens.enter();
        List<Statement> statements = new ArrayList<>();
        while (true) {
            Token token = tokens.current();
            switch (token.kind()) {
                case DATA ->
                    statements.add(
                            new Node.Data(token.line(), Text.of(tokens.next().value())));
                case VARIABLE_BEGIN -> {
                    tokens.next();
                    statements.add(new Node.Output(token.line(), expressions.tuple()));
                    tokens.expect(Kind.VARIABLE_END, "'}}'");
                }
                case BLOCK_BEGIN -> {
                    tokens.next();
                    Token name = tokens.expect(Kind.NAME, "the name of a tag");
                    if (ends.contains(name.value())) {
                        tokens.leave();
                        end = name.value();
                        return statements;
                    }
                    statements.add(statement(name));
                }
                case END -> {
                    if (!ends.isEmpty()) {
                        throw new TemplateError(
                                token.line(),
                                "the template ends where {% " + String.join(" %} or {% ", ends) + " %} was expected");
                    }
                    tokens.leave();
                    return statements;
                }
                default -> throw tokens.unexpected("text or a tag");
            }
        }
    }

    private Statement statement(Token tag) {
        int line = tag.line();
        return switch (tag.value()) {
            case "if" -> ifStatement(line);
            case "for" -> forStatement(line);
            case "set" -> setStatement(line);
            case "macro" -> macro(line);
            case "generation" -> {
                blockEnd();
                yield new Node.Generation(line, body("endgeneration"));
            }
            case "break", "continue" -> {
                if (loops == 0) {
                    throw new TemplateError(line, "'" + tag.value() + "' outside a loop");
                }
                blockEnd();
                yield tag.value().equals("break") ? new Node.Break(line) : new Node.Continue(line);
            }
            default ->
                throw new TemplateError(
                        line,
                        UNSUPPORTED.contains(tag.value())
                                ? "tag {% " + tag.value() + " %} is not supported"
                                : "unexpected tag {% " + tag.value() + " %}");
        };
    }

    private void blockEnd() {
        tokens.expect(Kind.BLOCK_END, "'%}'");
    }

    /** A body up to and with the one tag that ends it. */
    private List<Statement> body(String ending) {
        List<Statement> body = statements(Set.of(ending));
        blockEnd();
        return body;
    }

    private Statement ifStatement(int line) {
        List<Node.Branch> branches = new ArrayList<>();
        List<Statement> otherwise = List.of();
        do {
            Expression condition = expressions.tuple();
            blockEnd();
            branches.add(new Node.Branch(condition, statements(Set.of("elif", "else", "endif"))));
        } while (end.equals("elif"));
        if (end.equals("else")) {
            blockEnd();
            otherwise = statements(Set.of("endif"));
        }
        blockEnd();
        return new Node.If(line, branches, otherwise);
    }

    private Statement forStatement(int line) {
        List<String> targets = targets();
        if (!tokens.skipName("in")) {
            throw tokens.unexpected("'in'");
        }
        Expression iterable = iterable();
        Expression condition = tokens.skipName("if") ? expressions.expression() : null;
        if (tokens.current().isName("recursive")) {
            throw new TemplateError(line, "recursive loops are not supported");
        }
        blockEnd();
        loops++;
        List<Statement> body = statements(Set.of("else", "endfor"));
        loops--;
        List<Statement> otherwise = List.of();
        if (end.equals("else")) {
            blockEnd();
            otherwise = statements(Set.of("endfor"));
        }
        blockEnd();
        return new Node.For(line, targets, iterable, condition, body, otherwise);
    }

    private Expression iterable() {
        int line = tokens.line();
        List<Expression> items = new ArrayList<>(List.of(expressions.withoutCondition()));
        while (tokens.skipOperator(",")) {
            items.add(expressions.withoutCondition());
        }
        return items.size() == 1 ? items.getFirst() : new Node.TupleLiteral(line, items);
    }

    private List<String> targets() {
        boolean parenthesis = tokens.skipOperator("(");
        List<String> targets = new ArrayList<>();
        do {
            targets.add(tokens.expectName());
        } while (tokens.skipOperator(","));
        if (parenthesis) {
            tokens.expectOperator(")");
        }
        return targets;
    }

    private Statement setStatement(int line) {
        List<String> targets = targets();
        String attribute = tokens.skipOperator(".") ? tokens.expectName() : null;
        if (tokens.skipOperator("=")) {
            Expression value = expressions.tuple();
            blockEnd();
            return new Node.Assign(line, targets, attribute, value);
        }
        if (targets.size() > 1 || attribute != null) {
            throw tokens.unexpected("'='");
        }
        List<Node.Filter> filters = new ArrayList<>();
        while (tokens.current().isOperator("|")) {
            filters.add(expressions.filter(null));
        }
        blockEnd();
        return new Node.AssignBlock(line, targets.getFirst(), filters, body("endset"));
    }

    private Statement macro(int line) {
        String name = tokens.expectName();
        tokens.expectOperator("(");
        List<String> parameters = new ArrayList<>();
        List<Expression> defaults = new ArrayList<>();
        while (!tokens.skipOperator(")")) {
            if (!parameters.isEmpty()) {
                tokens.expectOperator(",");
            }
            parameters.add(tokens.expectName());
            if (tokens.skipOperator("=")) {
                defaults.add(expressions.expression());
            } else if (!defaults.isEmpty()) {
                throw tokens.unexpected("a default value");
            }
        }
        blockEnd();
        int outer = loops;
        loops = 0;
        List<Statement> body = body("endmacro");
        loops = outer;
        return new Node.MacroDefinition(line, name, parameters, defaults, body);
    }
}
