#include <lora4j/lora4j.h>
#include <stdio.h>

int main(void) {
    printf("lora4j %s\n", l4j_version_string());
    return 0;
}
