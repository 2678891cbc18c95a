# One set of compiler flags for each ISA tier, given to that tier's files and to nothing else: code outside a tier folder
# can never contain an instruction that the machine may lack.

include_guard(GLOBAL)

set(LORA4J_ISA_avx2_FLAGS -mavx2 -mfma -mf16c -mno-avx512f)
set(LORA4J_ISA_avx512_FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
                            -mprefer-vector-width=512)

# Folders with what an instruction adds to the tier avx512.
set(LORA4J_ISA_avx512_bf16_FLAGS ${LORA4J_ISA_avx512_FLAGS} -mavx512bf16)
set(LORA4J_ISA_avx512_vnni_FLAGS ${LORA4J_ISA_avx512_FLAGS} -mavx512vnni)
set(LORA4J_ISA_amx_bf16_FLAGS ${LORA4J_ISA_avx512_FLAGS}) # its tile instructions are assembly
set(LORA4J_ISA_amx_int8_FLAGS ${LORA4J_ISA_avx512_FLAGS})

# lora4j_objects(<name> SOURCES <files> [FLAGS <flags>] [DEFINITIONS <defs>] [INCLUDES <dirs>])
# Compiles a group of sources into the object library lora4j_<name> and adds it to the library. A group without sources
# adds nothing.
function(lora4j_objects name)
  cmake_parse_arguments(arg "" "" "SOURCES;FLAGS;DEFINITIONS;INCLUDES" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_library(lora4j_${name} OBJECT ${arg_SOURCES})
  target_compile_options(lora4j_${name} PRIVATE ${arg_FLAGS})
  target_compile_definitions(lora4j_${name} PRIVATE L4J_BUILDING ${arg_DEFINITIONS})
  target_include_directories(lora4j_${name} BEFORE PRIVATE ${arg_INCLUDES} "${PROJECT_SOURCE_DIR}/src"
                                                          "${PROJECT_SOURCE_DIR}/include")
  target_link_libraries(lora4j_${name} PRIVATE lora4j_options)
  set_property(GLOBAL APPEND PROPERTY LORA4J_OBJECTS $<TARGET_OBJECTS:lora4j_${name}>)
endfunction()

# lora4j_tier(<tier>): src/cpu/simd/*.c and src/cpu/<tier>/*.c, compiled for that tier. simd/ holds what the tiers share;
# it includes the vector type of its tier from src/cpu/<tier>.
function(lora4j_tier tier)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/simd/*.c" "${PROJECT_SOURCE_DIR}/src/cpu/${tier}/*.c")
  lora4j_objects(${tier}
    SOURCES ${sources}
    FLAGS ${LORA4J_ISA_${tier}_FLAGS}
    DEFINITIONS L4J_TIER=${tier}
    INCLUDES "${PROJECT_SOURCE_DIR}/src/cpu/${tier}")
endfunction()

# lora4j_instruction(<name>): src/cpu/<name>/*.c with the flags of <name>.
function(lora4j_instruction name)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/${name}/*.c")
  lora4j_objects(${name} SOURCES ${sources} FLAGS ${LORA4J_ISA_${name}_FLAGS} INCLUDES "${PROJECT_SOURCE_DIR}/src/cpu/avx512")
endfunction()
