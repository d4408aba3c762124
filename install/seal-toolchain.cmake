# SEAL's build clones three optional parts (GSL, zlib, zstd) from GitHub. Pyfhel needs none of them, so they are
# switched off here: CMake >= 3.21 reads this file through the environment variable CMAKE_TOOLCHAIN_FILE, and FORCE
# overrides the -D options that Pyfhel's own setup passes. Only SEAL's compressed serialisation is lost.
foreach(option SEAL_BUILD_DEPS SEAL_USE_MSGSL SEAL_USE_ZLIB SEAL_USE_ZSTD)
  set(${option} OFF CACHE BOOL "" FORCE)
endforeach()
