package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.PaddingLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Sizes and offsets of the bindings are those that the C compiler gives the header's structs. */
class StructLayoutTest {
    @Test
    void sizesAndOffsets(@TempDir Path folder) throws Exception {
        StringBuilder expected = new StringBuilder();
        StringBuilder source =
                new StringBuilder("#include \"lora4j/lora4j.h\"\n#include <stdio.h>\nint main(void) {\n");
        for (GroupLayout struct : structs()) {
            String name = struct.name().orElseThrow();
            expected.append(name).append(' ').append(struct.byteSize()).append('\n');
            source.append("printf(\"%s %%zu\\n\", sizeof(%s));\n".formatted(name, name));
            for (MemoryLayout member : struct.memberLayouts()) {
                if (!(member instanceof PaddingLayout)) {
                    String field = member.name().orElseThrow();
                    long offset = struct.byteOffset(PathElement.groupElement(field));
                    expected.append("%s.%s %d %d\n".formatted(name, field, offset, member.byteSize()));
                    source.append("printf(\"%s.%s %%zu %%zu\\n\", offsetof(%s, %s), sizeof(((%s *)0)->%s));\n"
                            .formatted(name, field, name, field, name, field));
                }
            }
        }
        String include =
                Path.of(System.getProperty("lora4j.root"), "native", "include").toString();
        Path program =
                CCompiler.compile(folder.resolve("layout"), source.append("}\n").toString(), "-I" + include);
        assertThat(CCompiler.run(Map.of(), List.of(program.toString()))).isEqualTo(expected.toString());
    }

    /** Every generated class with a layout. */
    private static List<GroupLayout> structs() throws Exception {
        Path folder = Path.of(LoraNative.class
                        .getProtectionDomain()
                        .getCodeSource()
                        .getLocation()
                        .toURI())
                .resolve(LoraNative.class.getPackageName().replace('.', '/'));
        try (Stream<Path> files = Files.list(folder)) {
            List<GroupLayout> structs = files.map(file -> file.getFileName().toString())
                    .filter(file -> file.matches("l4j_\\w+\\.class"))
                    .sorted()
                    .map(file -> layout(file.replace(".class", "")))
                    .toList();
            assertThat(structs).hasSizeGreaterThan(15);
            return structs;
        }
    }

    private static GroupLayout layout(String name) {
        try {
            Class<?> type = Class.forName(LoraNative.class.getPackageName() + "." + name);
            return (GroupLayout) type.getMethod("layout").invoke(null);
        } catch (ReflectiveOperationException e) {
            throw new AssertionError(name, e);
        }
    }
}
