package io.lora4j.formats.template;

import java.util.Iterator;
import java.util.List;

/** What filters such as {@code map} give: a sequence that can be walked once, has no length, and is always true. */
record Generator(Iterator<Object> items) implements Iterable<Object> {
    static Generator of(List<Object> items) {
        return new Generator(items.iterator());
    }

    @Override
    public Iterator<Object> iterator() {
        return items;
    }
}
