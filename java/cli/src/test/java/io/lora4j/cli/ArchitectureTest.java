package io.lora4j.cli;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.Architectures.layeredArchitecture;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The directions that dependencies may point in, over the classes of all modules. */
class ArchitectureTest {
    private static final String[] KERNELS = {"io.lora4j.kernels", "io.lora4j.kernels.generated"};

    /** The methods for which the JDK wants --enable-native-access, by the class that declares them. */
    private static final Map<String, Set<String>> RESTRICTED = Map.of(
            Linker.class.getName(), Set.of("downcallHandle", "upcallStub"),
            SymbolLookup.class.getName(), Set.of("libraryLookup"),
            MemorySegment.class.getName(), Set.of("reinterpret"),
            AddressLayout.class.getName(), Set.of("withTargetLayout"),
            System.class.getName(), Set.of("load", "loadLibrary"),
            Runtime.class.getName(), Set.of("load", "loadLibrary"));

    private static JavaClasses classes;

    @BeforeAll
    static void read() {
        classes = new ClassFileImporter()
                .withImportOption(new ImportOption.DoNotIncludeTests())
                .importPackages("io.lora4j");
    }

    /** Rules hold for what is not there, so look that every module is. */
    @ParameterizedTest
    @ValueSource(strings = {"cli", "train", "formats", "kernels", "kernels.generated", "interop.javacpp"})
    void everyModuleIsOnTheClassPath(String module) {
        assertThat(classes.stream().filter(c -> c.getPackageName().equals("io.lora4j." + module)))
                .isNotEmpty();
    }

    @Test
    void modulesPointOneWay() {
        layeredArchitecture()
                .consideringOnlyDependenciesInLayers()
                .layer("cli")
                .definedBy("io.lora4j.cli..")
                .layer("train")
                .definedBy("io.lora4j.train..")
                .layer("formats")
                .definedBy("io.lora4j.formats..")
                .layer("kernels")
                .definedBy("io.lora4j.kernels..")
                .layer("interop")
                .definedBy("io.lora4j.interop..")
                .whereLayer("cli")
                .mayNotBeAccessedByAnyLayer()
                .whereLayer("train")
                .mayOnlyBeAccessedByLayers("cli")
                .whereLayer("formats")
                .mayOnlyBeAccessedByLayers("train", "cli")
                .whereLayer("interop")
                .mayNotBeAccessedByAnyLayer()
                .check(classes);
    }

    @Test
    void onlyItsBridgeSeesJavaCpp() {
        noClasses()
                .that()
                .resideOutsideOfPackage("io.lora4j.interop.javacpp")
                .should()
                .dependOnClassesThat()
                .resideInAPackage("org.bytedeco..")
                .check(classes);
    }

    @Test
    void onlyKernelsNeedNativeAccess() {
        noClasses()
                .that()
                .resideOutsideOfPackages(KERNELS)
                .should()
                .accessTargetWhere(isRestricted())
                .because("users enable native access for one module")
                .check(classes);
    }

    /** Shows that the rule before sees such calls: the kernels make some. */
    @Test
    void kernelsMakeRestrictedCalls() {
        assertThat(classes.stream()
                        .flatMap(c -> c.getAccessesFromSelf().stream())
                        .filter(isRestricted()))
                .isNotEmpty();
    }

    @Test
    void onlyKernelsSeeTheGeneratedBindings() {
        noClasses()
                .that()
                .resideOutsideOfPackages(KERNELS)
                .should()
                .dependOnClassesThat()
                .resideInAPackage(KERNELS[1])
                .because("every argument is checked before it crosses into C")
                .check(classes);
    }

    private static DescribedPredicate<JavaAccess<?>> isRestricted() {
        return DescribedPredicate.describe(
                "is a restricted method",
                access -> RESTRICTED
                        .getOrDefault(access.getTargetOwner().getName(), Set.of())
                        .contains(access.getTarget().getName()));
    }
}
