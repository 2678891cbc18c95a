/** JavaCPP's pointers as tensors, and tensors as JavaCPP's pointers, without a copy. */
module io.lora4j.interop.javacpp {
    requires transitive io.lora4j.kernels;
    requires transitive org.bytedeco.javacpp;
    requires static org.jspecify;

    exports io.lora4j.interop.javacpp;
}
