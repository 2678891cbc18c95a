# The library exports exactly the functions that the public header declares.
#   cmake -DLIBRARY=<liblora4j.so> -DHEADER=<lora4j.h> -DNM=<nm> -P CheckExports.cmake
file(READ "${HEADER}" header)
string(REPLACE ";" "\n" header "${header}")
string(REGEX MATCHALL "L4J_API [^(]*[ *]l4j_[a-z0-9_]+\\(" declared "${header}")
list(TRANSFORM declared REPLACE ".*[ *](l4j_[a-z0-9_]+)\\($" "\\1")

execute_process(COMMAND ${NM} --dynamic --defined-only --format=posix "${LIBRARY}" OUTPUT_VARIABLE symbols
                RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${LIBRARY}")
endif()
string(REGEX MATCHALL "[^\n]+ [TWVDBRi] [^\n]*" exported "${symbols}")
list(TRANSFORM exported REPLACE "^([^ @]+).*" "\\1")
list(FILTER exported EXCLUDE REGEX "^LORA4J_")

list(LENGTH declared count)
if(count EQUAL 0)
  message(FATAL_ERROR "no declaration found in ${HEADER}")
endif()
set(missing ${declared})
list(REMOVE_ITEM missing ${exported})
set(extra ${exported})
list(REMOVE_ITEM extra ${declared})
if(missing OR extra)
  message(FATAL_ERROR "${LIBRARY}\n  does not export: ${missing}\n  exports beyond ${HEADER}: ${extra}")
endif()
message(STATUS "${count} functions declared and exported")
