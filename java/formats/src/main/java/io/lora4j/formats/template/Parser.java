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
            Set.of("block extends include import from with autoescape do trans debug".split(" "));

    private final TokenStream tokens;
    private final ExpressionParser expressions;
    private int loops;
    /** The tag name that ended the last body. */
    private String end = "";

    private boolean marksGeneration;

    Parser(String source) {
        this.tokens = new TokenStream(Lexer.tokenize(source));
        this.expressions = new ExpressionParser(tokens);
    }

    List<Statement> template() {
        List<Statement> body = statements(Set.of());
        if (tokens.current().kind() != Kind.END) {
            throw tokens.unexpected("text or a tag");
        }
        return body;
    }

    /** Returns whether a generation tag was parsed. */
    boolean marksGeneration() {
        return marksGeneration;
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
            case "filter" -> filterBlock(line);
            case "macro" -> macro(line);
            case "call" -> callBlock(line);
            case "generation" -> {
                marksGeneration = true;
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
        expressions.enterBranch();
        do {
            Expression condition = expressions.tuple();
            blockEnd();
            branches.add(new Node.Branch(condition, statements(Set.of("elif", "else", "endif"))));
        } while (end.equals("elif"));
        if (end.equals("else")) {
            blockEnd();
            otherwise = statements(Set.of("endif"));
        }
        expressions.leaveBranch();
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
        List<Node.Filter> filters = filters();
        blockEnd();
        return new Node.FilteredBlock(line, targets.getFirst(), filters, body("endset"));
    }

    private List<Node.Filter> filters() {
        List<Node.Filter> filters = new ArrayList<>();
        while (tokens.skipOperator("|")) {
            filters.add(expressions.filter(null));
        }
        return filters;
    }

    private Statement filterBlock(int line) {
        List<Node.Filter> filters = new ArrayList<>(List.of(expressions.filter(null)));
        filters.addAll(filters());
        blockEnd();
        return new Node.FilteredBlock(line, null, filters, body("endfilter"));
    }

    private Statement callBlock(int line) {
        Signature signature = tokens.current().isOperator("(") ? signature() : new Signature(List.of(), List.of());
        Token token = tokens.current();
        if (!(expressions.withoutCondition() instanceof Node.Call call)) {
            throw new TemplateError(line, "found " + token.describe() + " where the call of a macro was expected");
        }
        blockEnd();
        return new Node.CallBlock(line, call, macro(line, "caller", signature, "endcall"));
    }

    private Statement macro(int line) {
        String name = tokens.expectName();
        Signature signature = signature();
        blockEnd();
        return macro(line, name, signature, "endmacro");
    }

    private Node.MacroDefinition macro(int line, String name, Signature signature, String ending) {
        int outer = loops;
        loops = 0;
        List<Statement> body = body(ending);
        loops = outer;
        return new Node.MacroDefinition(line, name, signature.parameters(), signature.defaults(), body);
    }

    /** The parameters of a macro; the last ones have the defaults. */
    private record Signature(List<String> parameters, List<Expression> defaults) {}

    private Signature signature() {
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
        return new Signature(parameters, defaults);
    }
}
