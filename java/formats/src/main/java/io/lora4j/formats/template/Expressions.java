package io.lora4j.formats.template;

import io.lora4j.formats.template.Callables.Args;
import io.lora4j.formats.template.Callables.BoundMethod;
import io.lora4j.formats.template.Node.Expression;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Evaluates expressions with Python's meaning. */
final class Expressions {
    private final Evaluator evaluator;

    Expressions(Evaluator evaluator) {
        this.evaluator = evaluator;
    }

    Object evaluate(Expression expression, Scope scope) {
        evaluator.step(expression.line());
        try {
            return value(expression, scope);
        } catch (TemplateError e) {
            throw e.at(expression.line());
        } catch (ArithmeticException e) {
            throw new TemplateError(expression.line(), "integer overflow or division by zero");
        }
    }

    private Object value(Expression expression, Scope scope) {
        return switch (expression) {
            case Node.Constant constant -> constant.value();
            case Node.Name name -> scope.get(name.name());
            case Node.ListLiteral list -> all(list.items(), scope);
            case Node.TupleLiteral tuple -> new Tuple(all(tuple.items(), scope));
            case Node.DictLiteral dict -> {
                Map<Object, Object> map = new LinkedHashMap<>();
                for (Node.DictEntry entry : dict.entries()) {
                    map.put(Values.toKey(evaluate(entry.key(), scope)), evaluate(entry.value(), scope));
                }
                yield map;
            }
            case Node.Attribute attribute -> attribute(evaluate(attribute.object(), scope), attribute.name());
            case Node.Item item -> item(evaluate(item.object(), scope), evaluate(item.index(), scope));
            case Node.Slice slice -> slice(slice, scope);
            case Node.Call call -> call(evaluate(call.function(), scope), arguments(call.arguments(), scope), call);
            case Node.Filter filter -> {
                if (filter.input() == null) {
                    throw new IllegalStateException("filter without input");
                }
                yield filter(filter, evaluate(filter.input(), scope), scope);
            }
            case Node.Test test -> {
                Object input = evaluate(test.input(), scope);
                Tests.requireKnown(test.name(), test.line());
                yield Tests.test(test.name(), input, all(test.arguments(), scope)) != test.negated();
            }
            case Node.Unary unary -> unary(unary.operator(), evaluate(unary.operand(), scope));
            case Node.Binary binary ->
                Operators.binary(binary.operator(), evaluate(binary.left(), scope), evaluate(binary.right(), scope));
            case Node.Comparisons comparisons -> comparisons(comparisons, scope);
            case Node.And and -> {
                Object left = evaluate(and.left(), scope);
                yield Values.truth(left) ? evaluate(and.right(), scope) : left;
            }
            case Node.Or or -> {
                Object left = evaluate(or.left(), scope);
                yield Values.truth(left) ? left : evaluate(or.right(), scope);
            }
            case Node.Conditional conditional -> {
                if (Values.truth(evaluate(conditional.condition(), scope))) {
                    yield evaluate(conditional.value(), scope);
                }
                yield conditional.otherwise() == null
                        ? new Undefined("the value of an if without else")
                        : evaluate(conditional.otherwise(), scope);
            }
        };
    }

    private List<Object> all(List<Expression> expressions, Scope scope) {
        List<Object> values = new ArrayList<>();
        for (Expression expression : expressions) {
            values.add(evaluate(expression, scope));
        }
        return values;
    }

    private Args arguments(Node.Arguments arguments, Scope scope) {
        Map<String, Object> named = new LinkedHashMap<>();
        arguments.named().forEach((name, value) -> named.put(name, evaluate(value, scope)));
        List<Object> positional = all(arguments.positional(), scope);
        if (arguments.sequence() != null) {
            positional.addAll(Values.items(evaluate(arguments.sequence(), scope)));
        }
        if (arguments.mapping() != null) {
            Object mapping = evaluate(arguments.mapping(), scope);
            if (!(mapping instanceof Map<?, ?> map)) {
                throw Values.error("'**' needs a mapping, not " + Values.described(mapping), mapping);
            }
            map.forEach((name, value) -> named.put(String.valueOf(name), value));
        }
        return new Args(positional, named);
    }

    Object filter(Node.Filter filter, Object input, Scope scope) {
        return Filters.apply(filter.name(), input, arguments(filter.arguments(), scope));
    }

    /** Calls a macro that may call {@code caller} in turn. */
    Object call(Node.Call call, Evaluator.Macro caller, Scope scope) {
        Object function = evaluate(call.function(), scope);
        if (!(function instanceof Evaluator.Macro macro)) {
            throw Values.error("{% call %} needs a macro, not " + Values.described(function), function);
        }
        return evaluator.call(macro, arguments(call.arguments(), scope), caller);
    }

    private Object call(Object function, Args args, Node.Call call) {
        return switch (function) {
            case Callables.Function f -> f.call(args);
            case Evaluator.Macro macro -> evaluator.call(macro, args, null);
            case BoundMethod(Loop loop, String name) -> loop.cycle(args);
            case BoundMethod(Object self, String name) -> Methods.call(self, name, args);
            default ->
                throw Values.error(
                        (call.function() instanceof Node.Name n ? "'" + n.name() + "'" : Values.described(function))
                                + " cannot be called",
                        function);
        };
    }

    /** As {@code object.name}: methods before items. */
    static Object attribute(Object object, String name) {
        return switch (object) {
            case Undefined undefined -> throw undefined.error();
            case Loop loop -> loop.attribute(name);
            case Namespace namespace -> {
                Object value = namespace.attributes().get(name);
                yield value == null ? new Undefined(name) : value;
            }
            default -> {
                if (Methods.exists(object, name)) {
                    yield new BoundMethod(object, name);
                }
                Object value = object instanceof Map<?, ?> map ? map.get(name) : null;
                yield value == null ? new Undefined(name) : value;
            }
        };
    }

    /** As {@code object[index]}: items before attributes. */
    static Object item(Object object, Object index) {
        switch (object) {
            case Undefined undefined -> throw undefined.error();
            case Map<?, ?> map -> {
                Object value = index instanceof Undefined ? null : map.get(Values.toKey(index));
                if (value != null) {
                    return value;
                }
            }
            case List<?> list
            when Values.isIntegral(index) -> {
                return at(list, index);
            }
            case Text text
            when Values.isIntegral(index) -> {
                return at(Values.items(text), index);
            }
            default -> {}
        }
        if (index instanceof Text name) {
            return attribute(object, name.toString());
        }
        return new Undefined(index instanceof Undefined u ? u.name() : Values.repr(index));
    }

    private static Object at(List<?> list, Object index) {
        long i = Values.toLong(index);
        i = i < 0 ? i + list.size() : i;
        return i < 0 || i >= list.size() ? new Undefined("item " + Values.repr(index)) : list.get((int) i);
    }

    private Object slice(Node.Slice slice, Scope scope) {
        Object object = evaluate(slice.object(), scope);
        if (object instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (!(object instanceof Text) && !(object instanceof List<?>)) {
            throw new TemplateError(Values.described(object) + " cannot be sliced");
        }
        List<Object> items = Values.items(object);
        Object step = slice.step() == null ? 1L : evaluate(slice.step(), scope);
        List<Object> picked = Operators.slice(
                items,
                slice.start() == null ? None.NONE : evaluate(slice.start(), scope),
                slice.stop() == null ? None.NONE : evaluate(slice.stop(), scope),
                step == None.NONE ? 1 : Values.toLong(step));
        if (object instanceof Text text) {
            Text.Builder out = new Text.Builder();
            picked.forEach(c -> out.append(Values.text(c)));
            return text.isMarkup() ? out.build().asMarkup() : out.build();
        }
        return object instanceof Tuple ? new Tuple(picked) : picked;
    }

    private static Object unary(String operator, Object operand) {
        if (operator.equals("not")) {
            return !Values.truth(operand);
        }
        if (operand instanceof Double d) {
            return operator.equals("-") ? -d : d;
        }
        long value = Values.toLong(operand);
        return operator.equals("-") ? Math.negateExact(value) : value;
    }

    private Object comparisons(Node.Comparisons comparisons, Scope scope) {
        Object left = evaluate(comparisons.first(), scope);
        for (Node.Comparison comparison : comparisons.rest()) {
            Object right = evaluate(comparison.right(), scope);
            if (!Operators.compare(comparison.operator(), left, right)) {
                return false;
            }
            left = right;
        }
        return true;
    }
}
