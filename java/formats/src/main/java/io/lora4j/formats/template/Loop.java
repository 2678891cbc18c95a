package io.lora4j.formats.template;

import java.util.List;

/** The variable {@code loop} inside a for tag. */
final class Loop {
    private final List<Object> items;
    private final int index;
    private final int depth;

    Loop(List<Object> items, int index, int depth) {
        this.items = items;
        this.index = index;
        this.depth = depth;
    }

    int depth() {
        return depth;
    }

    Object attribute(String name) {
        int size = items.size();
        return switch (name) {
            case "index" -> (long) index + 1;
            case "index0" -> (long) index;
            case "revindex" -> (long) size - index;
            case "revindex0" -> (long) size - index - 1;
            case "first" -> index == 0;
            case "last" -> index == size - 1;
            case "length" -> (long) size;
            case "depth" -> (long) depth;
            case "depth0" -> (long) depth - 1;
            case "previtem" -> index > 0 ? items.get(index - 1) : new Undefined("loop.previtem");
            case "nextitem" -> index < size - 1 ? items.get(index + 1) : new Undefined("loop.nextitem");
            case "cycle" -> new Callables.BoundMethod(this, "cycle");
            default -> throw new TemplateError("attribute 'loop." + name + "' is not supported");
        };
    }

    Object cycle(Callables.Args args) {
        if (args.positional().isEmpty()) {
            throw new TemplateError("'loop.cycle' needs arguments");
        }
        return args.positional().get(index % args.positional().size());
    }
}
