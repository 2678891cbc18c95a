# Copies the libraries that a build makes (libraries.txt) into the folder that becomes the platform jar: liblora4j.so and, where there
# was nvcc, liblora4j_cuda.so. Not the links to them, and nothing that an earlier build has left there.
#   cmake -DFROM=<build> -DTO=<resources>/META-INF/native/<os>-<arch> -P CollectLibrary.cmake
file(STRINGS "${FROM}/libraries.txt" libraries)
file(GLOB earlier "${TO}/*.so")
foreach(library IN LISTS libraries)
  file(REAL_PATH "${library}" file)
  get_filename_component(name "${library}" NAME_WE)
  configure_file("${file}" "${TO}/${name}.so" COPYONLY)
  list(REMOVE_ITEM earlier "${TO}/${name}.so")
endforeach()
if(earlier)
  file(REMOVE ${earlier})
endif()
