/** Native kernels for LoRA fine-tuning and the Java API over them. The only module that needs native access. */
module io.lora4j.kernels {
    requires static org.jspecify;

    exports io.lora4j.kernels;
}
