module consumer {
    requires io.lora4j.train;
}
