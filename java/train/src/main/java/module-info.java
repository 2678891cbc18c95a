/** Models, LoRA layers, optimizers, data, the training loop, checkpoints. */
module io.lora4j.train {
    requires transitive io.lora4j.formats;
    requires static org.jspecify;
    requires java.management;
    requires jdk.management;
    requires org.slf4j;
    requires tools.jackson.databind;

    exports io.lora4j.train;
    exports io.lora4j.train.checkpoint;
    exports io.lora4j.train.data;
    exports io.lora4j.train.model;
}
