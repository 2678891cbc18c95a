package io.lora4j.formats.template;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The syntax tree of a template. Every node knows its line, from 1. */
sealed interface Node {
    int line();

    /** What is done. */
    sealed interface Statement extends Node {}

    /** What has a value. */
    sealed interface Expression extends Node {}

    record Data(int line, Text text) implements Statement {}

    record Output(int line, Expression value) implements Statement {}

    record Branch(Expression condition, List<Statement> body) {}

    record If(int line, List<Branch> branches, List<Statement> otherwise) implements Statement {}

    record For(
            int line,
            List<String> targets,
            Expression iterable,
            @Nullable Expression condition,
            List<Statement> body,
            List<Statement> otherwise)
            implements Statement {}

    /** Assigns to names, or with {@code attribute} to an attribute of the namespace that the one name holds. */
    record Assign(int line, List<String> targets, @Nullable String attribute, Expression value) implements Statement {}

    /** Assigns what the body prints to a name, or prints it where there is none, filtered. */
    record FilteredBlock(int line, @Nullable String target, List<Filter> filters, List<Statement> body)
            implements Statement {}

    record MacroDefinition(
            int line, String name, List<String> parameters, List<Expression> defaults, List<Statement> body)
            implements Statement {}

    /** Prints a macro that can print the body by calling {@code caller}. */
    record CallBlock(int line, Call call, MacroDefinition caller) implements Statement {}

    record Generation(int line, List<Statement> body) implements Statement {}

    record Break(int line) implements Statement {}

    record Continue(int line) implements Statement {}

    record Constant(int line, Object value) implements Expression {}

    record Name(int line, String name) implements Expression {}

    record ListLiteral(int line, List<Expression> items) implements Expression {}

    record TupleLiteral(int line, List<Expression> items) implements Expression {}

    record DictEntry(Expression key, Expression value) {}

    record DictLiteral(int line, List<DictEntry> entries) implements Expression {}

    record Attribute(int line, Expression object, String name) implements Expression {}

    record Item(int line, Expression object, Expression index) implements Expression {}

    record Slice(
            int line,
            Expression object,
            @Nullable Expression start,
            @Nullable Expression stop,
            @Nullable Expression step)
            implements Expression {}

    /** The arguments of a call, and the sequence and the mapping that {@code *} and {@code **} unpack behind them. */
    record Arguments(
            List<Expression> positional,
            Map<String, Expression> named,
            @Nullable Expression sequence,
            @Nullable Expression mapping) {
        static final Arguments NONE = new Arguments(List.of(), Map.of(), null, null);
    }

    record Call(int line, Expression function, Arguments arguments) implements Expression {}

    /** A filter; without an input only as part of a block assignment. */
    record Filter(int line, @Nullable Expression input, String name, Arguments arguments) implements Expression {}

    record Test(int line, Expression input, String name, List<Expression> arguments, boolean negated)
            implements Expression {}

    record Unary(int line, String operator, Expression operand) implements Expression {}

    record Binary(int line, String operator, Expression left, Expression right) implements Expression {}

    record Comparison(String operator, Expression right) {}

    record Comparisons(int line, Expression first, List<Comparison> rest) implements Expression {}

    record And(int line, Expression left, Expression right) implements Expression {}

    record Or(int line, Expression left, Expression right) implements Expression {}

    record Conditional(
            int line,
            Expression condition,
            Expression value,
            @Nullable Expression otherwise) implements Expression {}
}
