package io.lora4j.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.kernels.generated.LoraNative;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** The enums have the codes of the header, and all of them. */
class CodesTest {
    @Test
    void dtypes() {
        assertThat(codes(DType.values(), dtype -> "L4J_" + dtype, DType::code))
                .isEqualTo(constants("L4J_([FIU]\\d+|BF16|BOOL)"));
    }

    @Test
    void isas() {
        assertThat(codes(Isa.values(), isa -> "L4J_ISA_" + isa, Isa::code)).isEqualTo(constants("L4J_ISA_\\w+"));
        for (Isa isa : Isa.values()) {
            assertThat(Isa.of(isa.code())).isEqualTo(isa);
        }
    }

    @Test
    void schemesAndParts() {
        assertThat(codes(Scheme.values(), scheme -> "L4J_SCHEME_" + scheme, Scheme::code))
                .isEqualTo(constants("L4J_SCHEME_\\w+"));
        assertThat(codes(Part.values(), part -> "L4J_ROLE_" + part, Part::code)).isEqualTo(constants("L4J_ROLE_\\w+"));
    }

    @Test
    void statuses() {
        Status[] known = Arrays.copyOf(Status.values(), Status.values().length - 1);
        assertThat(codes(known, status -> "L4J_" + status, Status::code)).isEqualTo(constants("L4J_(OK|E[A-Z]+)"));
        for (Status status : known) {
            assertThat(Status.of(status.code())).isEqualTo(status);
        }
        assertThat(Status.of(99)).isEqualTo(Status.UNKNOWN);
        assertThat(Status.of(-5)).isEqualTo(Status.UNKNOWN);
    }

    @Test
    void precisions() {
        assertThat(codes(Compute.values(), compute -> "L4J_COMPUTE_" + compute, Compute::code))
                .isEqualTo(constants("L4J_COMPUTE_\\w+"));
    }

    @Test
    void reportingOperations() {
        assertThat(codes(NumericStatus.Operation.values(), operation -> "L4J_OP_" + operation, Enum::ordinal))
                .isEqualTo(constants("L4J_OP_\\w+"));
    }

    private static <T> Map<String, Integer> codes(T[] values, Function<T, String> name, Function<T, Integer> code) {
        Map<String, Integer> codes = new TreeMap<>();
        for (T value : values) {
            codes.put(name.apply(value), code.apply(value));
        }
        return codes;
    }

    private static Map<String, Integer> constants(String pattern) {
        Map<String, Integer> constants = new TreeMap<>();
        Stream.of(LoraNative.class.getMethods())
                .filter(method -> method.getName().matches(pattern))
                .forEach(method -> constants.put(method.getName(), value(method)));
        return constants;
    }

    private static int value(Method constant) {
        try {
            return (int) constant.invoke(null);
        } catch (ReflectiveOperationException e) {
            throw new AssertionError(constant.toString(), e);
        }
    }
}
