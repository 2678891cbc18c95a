# Copies the built library (not the link to it) into the folder that becomes the platform jar.
#   cmake -DFROM=<build>/liblora4j.so -DTO=<resources>/META-INF/native/<os>-<arch> -P CollectLibrary.cmake
file(MAKE_DIRECTORY "${TO}")
file(REAL_PATH "${FROM}" library)
configure_file("${library}" "${TO}/liblora4j.so" COPYONLY)
