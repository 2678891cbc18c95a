/** Model files: safetensors, GGUF, PEFT adapters, tokenizers, chat templates. */
module io.lora4j.formats {
    requires transitive io.lora4j.kernels;
    requires static org.jspecify;
    requires ai.djl.tokenizers;
    requires org.slf4j;
    requires tools.jackson.databind;

    exports io.lora4j.formats;
    exports io.lora4j.formats.template;
}
