package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.PaddingLayout;
import java.lang.foreign.SequenceLayout;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Header, generated bindings and exported symbols say the same. Regenerate the bindings with {@code -Pbindings}. */
class BindingsDriftTest {
    private static final String GENERATED = "io.lora4j.kernels.generated";

    private static CHeader header;
    private static List<Class<?>> bindings;

    @BeforeAll
    static void read() throws IOException, ReflectiveOperationException {
        header = CHeader.read(Path.of(property("lora4j.root"), "native", "include", "lora4j", "lora4j.h"));
        // The descriptors sit beside handles, which are bound when their class is initialised.
        NativeLibrary.load();
        bindings = generatedClasses();
    }

    /** A parser that finds nothing would agree with everything. */
    @Test
    void headerIsUnderstood() throws IOException {
        String text = Files.readString(Path.of(property("lora4j.root"), "native", "include", "lora4j", "lora4j.h"));
        assertThat(header.functions()).hasSize((int)
                text.lines().filter(l -> l.startsWith("L4J_API ")).count());
        assertThat(header.functions()).containsEntry("l4j_abi_version", "() i32");
        assertThat(header.structs().get("l4j_tensor"))
                .startsWith("data: pointer", "dtype: i32")
                .contains("shape: i64[4]");
        assertThat(header.constants()).containsEntry("L4J_EINVAL", 1L).containsKey("L4J_ABI_VERSION");
    }

    @Test
    void functions() {
        Map<String, String> bound = new TreeMap<>();
        getters("l4j_\\w+\\$descriptor", FunctionDescriptor.class)
                .forEach((name, value) -> bound.put(name.replace("$descriptor", ""), signature(value)));
        assertThat(bound).as("functions of the bindings").containsExactlyInAnyOrderEntriesOf(header.functions());
    }

    @Test
    void structs() throws ReflectiveOperationException {
        Map<String, List<String>> bound = new TreeMap<>();
        for (Class<?> type : bindings) {
            if (header.structs().containsKey(type.getSimpleName())) {
                GroupLayout layout = (GroupLayout) type.getMethod("layout").invoke(null);
                bound.put(type.getSimpleName(), fields(layout));
            }
        }
        assertThat(bound).as("structs of the bindings").containsExactlyInAnyOrderEntriesOf(header.structs());
    }

    @Test
    void constants() {
        Map<String, Integer> bound = getters("L4J_[A-Z0-9_]+", Integer.class);
        assertThat(bound.keySet())
                .as("constants of the bindings")
                .containsAll(header.constants().keySet());
        header.constants().forEach((name, value) -> {
            if (value != null) {
                assertThat(bound.get(name)).as(name).isEqualTo(value.intValue());
            }
        });
    }

    @Test
    void exports() {
        Path library = library();
        try (Arena arena = Arena.ofConfined()) {
            SymbolLookup symbols = SymbolLookup.libraryLookup(library, arena);
            assertThat(header.functions().keySet())
                    .filteredOn(name -> symbols.find(name).isEmpty())
                    .as("functions of lora4j.h that %s does not export", library)
                    .isEmpty();
        }
    }

    private static Path library() {
        Path path = Path.of(property("lora4j.native.path"));
        return Files.isDirectory(path) ? path.resolve("liblora4j.so") : path;
    }

    private static String property(String name) {
        String value = System.getProperty(name);
        assertThat(value).as("system property %s, set by the build", name).isNotNull();
        return value;
    }

    private static List<Class<?>> generatedClasses() throws IOException, ReflectiveOperationException {
        Path folder = Path.of(property("lora4j.root"), "java", "kernels", "target", "classes")
                .resolve(GENERATED.replace('.', '/'));
        List<String> names;
        try (Stream<Path> files = Files.list(folder)) {
            names = files.map(f -> f.getFileName().toString())
                    .filter(f -> f.endsWith(".class") && !f.contains("$"))
                    .map(f -> f.replace(".class", ""))
                    .toList();
        }
        List<Class<?>> classes = new ArrayList<>();
        for (String name : names) {
            classes.add(Class.forName(GENERATED + "." + name));
        }
        return classes;
    }

    /** Results of the static methods without parameters whose names match, over all generated classes. */
    private static <T> Map<String, T> getters(String name, Class<T> type) {
        Map<String, T> values = new TreeMap<>();
        for (Class<?> c : bindings) {
            for (Method method : c.getDeclaredMethods()) {
                if (method.getName().matches(name)
                        && Modifier.isStatic(method.getModifiers())
                        && method.getParameterCount() == 0) {
                    try {
                        values.put(method.getName(), type.cast(method.invoke(null)));
                    } catch (ReflectiveOperationException e) {
                        throw new AssertionError(method.toString(), e);
                    }
                }
            }
        }
        return values;
    }

    private static String signature(FunctionDescriptor function) {
        String parameters =
                function.argumentLayouts().stream().map(BindingsDriftTest::type).collect(Collectors.joining(", "));
        return "(" + parameters + ") "
                + function.returnLayout().map(BindingsDriftTest::type).orElse("void");
    }

    private static List<String> fields(GroupLayout struct) {
        return struct.memberLayouts().stream()
                .filter(member -> !(member instanceof PaddingLayout))
                .map(member -> member.name().orElseThrow() + ": " + type(member))
                .toList();
    }

    private static String type(MemoryLayout layout) {
        return switch (layout) {
            case AddressLayout a -> "pointer";
            case ValueLayout.OfFloat f -> "f32";
            case ValueLayout.OfDouble d -> "f64";
            case ValueLayout v -> "i" + v.byteSize() * 8;
            case SequenceLayout s -> type(s.elementLayout()) + "[" + s.elementCount() + "]";
            default -> throw new AssertionError("unexpected layout " + layout);
        };
    }
}
