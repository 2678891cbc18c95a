# -DLORA4J_SANITIZE=address,undefined or thread: instruments the library and its tests. The first finding ends the process.

include_guard(GLOBAL)

set(LORA4J_SANITIZE "" CACHE STRING "Sanitizers, separated by commas: address,undefined or thread")

if(LORA4J_SANITIZE)
  add_compile_options(-fsanitize=${LORA4J_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${LORA4J_SANITIZE})
endif()
