package io.lora4j.formats.template;

import io.lora4j.formats.template.Node.Statement;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * Runs the statements of a template. What is printed while a loop stands on a message is marked as that message's turn.
 */
final class Evaluator {
    /** Steps and characters after which a template is taken for one that never ends. */
    private static final long MAX_STEPS = 20_000_000;

    private static final int MAX_OUTPUT = 1 << 26;
    private static final int MAX_CALLS = 60;

    private final Expressions expressions = new Expressions(this);
    private final IdentityHashMap<Object, Integer> messages;
    private long steps;
    private int calls;

    /** What a body ended with. */
    private enum Flow {
        NORMAL,
        BREAK,
        CONTINUE
    }

    /** A macro with the scope that it was defined in. */
    record Macro(Node.MacroDefinition definition, Scope scope) {}

    Evaluator(IdentityHashMap<Object, Integer> messages) {
        this.messages = messages;
    }

    Text run(List<Statement> template, Scope scope) {
        Text.Builder out = new Text.Builder();
        body(template, scope, out);
        return out.build();
    }

    void step(int line) {
        if (++steps > MAX_STEPS) {
            throw new TemplateError(line, "runs for more than " + MAX_STEPS + " steps");
        }
    }

    private Flow body(List<Statement> body, Scope scope, Text.Builder out) {
        for (Statement statement : body) {
            step(statement.line());
            Flow flow;
            try {
                flow = statement(statement, scope, out);
            } catch (TemplateError e) {
                throw e.at(statement.line());
            }
            if (out.length() > MAX_OUTPUT) {
                throw new TemplateError(statement.line(), "prints more than " + MAX_OUTPUT + " characters");
            }
            if (flow != Flow.NORMAL) {
                return flow;
            }
        }
        return Flow.NORMAL;
    }

    private Flow statement(Statement statement, Scope scope, Text.Builder out) {
        switch (statement) {
            case Node.Data data -> out.append(data.text());
            case Node.Output output -> out.append(Values.text(expressions.evaluate(output.value(), scope)));
            case Node.If branches -> {
                return ifStatement(branches, scope, out);
            }
            case Node.For loop -> {
                return forStatement(loop, scope, out);
            }
            case Node.Assign assign -> assign(assign, scope);
            case Node.FilteredBlock block -> {
                return filteredBlock(block, scope, out);
            }
            case Node.MacroDefinition macro -> scope.set(macro.name(), new Macro(macro, scope));
            case Node.CallBlock block ->
                out.append(Values.text(expressions.call(block.call(), new Macro(block.caller(), scope), scope)));
            case Node.Generation generation -> {
                Text.Builder inner = new Text.Builder();
                Flow flow = body(generation.body(), new Scope(scope), inner);
                out.append(inner.build().asGenerated());
                return flow;
            }
            case Node.Break b -> {
                return Flow.BREAK;
            }
            case Node.Continue c -> {
                return Flow.CONTINUE;
            }
        }
        return Flow.NORMAL;
    }

    private Flow filteredBlock(Node.FilteredBlock block, Scope scope, Text.Builder out) {
        Text.Builder inner = new Text.Builder();
        Flow flow = body(block.body(), new Scope(scope), inner);
        if (flow != Flow.NORMAL) {
            return flow;
        }
        Object value = inner.build();
        for (Node.Filter filter : block.filters()) {
            value = expressions.filter(filter, value, scope);
        }
        if (block.target() == null) {
            out.append(Values.text(value));
        } else {
            scope.set(block.target(), value);
        }
        return flow;
    }

    private Flow ifStatement(Node.If branches, Scope scope, Text.Builder out) {
        for (Node.Branch branch : branches.branches()) {
            if (Values.truth(expressions.evaluate(branch.condition(), scope))) {
                return body(branch.body(), scope, out);
            }
        }
        return body(branches.otherwise(), scope, out);
    }

    private Flow forStatement(Node.For loop, Scope scope, Text.Builder out) {
        List<Object> items = new ArrayList<>();
        for (Object item : Values.items(expressions.evaluate(loop.iterable(), scope))) {
            if (loop.condition() == null) {
                items.add(item);
                continue;
            }
            step(loop.line());
            Scope inner = new Scope(scope);
            assignTargets(loop.targets(), item, inner);
            if (Values.truth(expressions.evaluate(loop.condition(), inner))) {
                items.add(item);
            }
        }
        int depth = scope.get("loop") instanceof Loop outer ? outer.depth() + 1 : 1;
        for (int i = 0; i < items.size(); i++) {
            step(loop.line());
            Scope inner = new Scope(scope);
            inner.set("loop", new Loop(items, i, depth));
            assignTargets(loop.targets(), items.get(i), inner);
            Text.Builder printed = new Text.Builder();
            Flow flow = body(loop.body(), inner, printed);
            out.append(attribute(printed.build(), items.get(i)));
            if (flow == Flow.BREAK) {
                break;
            }
        }
        return items.isEmpty() ? body(loop.otherwise(), scope, out) : Flow.NORMAL;
    }

    /**
     * Marks what an iteration printed: as the turn of the message that the loop stands on, or, where a loop counts instead
     * of walking the messages, of the only message whose content it printed.
     */
    private Text attribute(Text printed, Object item) {
        Integer message = messages.get(item);
        if (message != null) {
            return printed.ownedBy(message);
        }
        Set<Integer> origins = new TreeSet<>();
        for (int i = 0; i < printed.length(); i++) {
            if (printed.owner(i) >= 0) {
                return printed;
            }
            if (printed.origin(i) >= 0) {
                origins.add(printed.origin(i));
            }
        }
        return origins.size() == 1 ? printed.ownedBy(origins.iterator().next()) : printed;
    }

    private void assign(Node.Assign assign, Scope scope) {
        Object value = expressions.evaluate(assign.value(), scope);
        if (assign.attribute() == null) {
            assignTargets(assign.targets(), value, scope);
            return;
        }
        Object target = scope.get(assign.targets().getFirst());
        if (!(target instanceof Namespace namespace)) {
            throw Values.error(
                    "cannot assign attribute '" + assign.attribute() + "' of " + Values.described(target)
                            + "; only namespaces take it",
                    target);
        }
        namespace.attributes().put(assign.attribute(), value);
    }

    private static void assignTargets(List<String> targets, Object value, Scope scope) {
        if (targets.size() == 1) {
            scope.set(targets.getFirst(), value);
            return;
        }
        List<Object> items = Values.items(value);
        if (items.size() != targets.size()) {
            throw new TemplateError("cannot unpack " + items.size() + " values into " + targets.size() + " names");
        }
        for (int i = 0; i < targets.size(); i++) {
            scope.set(targets.get(i), items.get(i));
        }
    }

    /** Returns what a macro prints; {@code caller} is what a call block gives it. */
    Object call(Macro macro, Callables.Args args, @Nullable Macro caller) {
        Node.MacroDefinition definition = macro.definition();
        List<String> parameters = definition.parameters();
        args.atMost(definition.name(), parameters.toArray(String[]::new));
        if (++calls > MAX_CALLS) {
            throw new TemplateError("macro '" + definition.name() + "' calls deeper than " + MAX_CALLS + " levels");
        }
        Scope scope = new Scope(macro.scope());
        if (caller != null) {
            scope.set("caller", caller);
        }
        int required = parameters.size() - definition.defaults().size();
        for (int i = 0; i < parameters.size(); i++) {
            String name = parameters.get(i);
            @Nullable
            Object given = i < args.positional().size()
                    ? args.positional().get(i)
                    : args.named().get(name);
            if (given == null) {
                given = i >= required
                        ? expressions.evaluate(definition.defaults().get(i - required), scope)
                        : new Undefined(name);
            }
            scope.set(name, given);
        }
        Text.Builder out = new Text.Builder();
        body(definition.body(), scope, out);
        calls--;
        return out.build();
    }

    /** Returns the functions that every template sees. */
    static Map<String, Callables.Function> functions(java.time.ZonedDateTime now) {
        Map<String, Callables.Function> functions = new LinkedHashMap<>();
        functions.put("namespace", args -> new Namespace(Functions.dict(args)));
        functions.put("dict", args -> Functions.dict(args));
        functions.put("range", Functions::range);
        functions.put("raise_exception", Functions::raise);
        functions.put("strftime_now", args -> Functions.strftime(args, now));
        return functions;
    }
}
