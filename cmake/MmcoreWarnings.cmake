# Warnings of our own targets; linked PRIVATE, so that no embedder inherits them.
add_library(mmcore_warnings INTERFACE)
target_compile_options(mmcore_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wconversion -Wno-sign-conversion>)
if(MMCORE_WERROR)
  target_compile_options(mmcore_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(MMCORE_SANITIZE)
  target_compile_options(mmcore_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${MMCORE_SANITIZE} -fno-omit-frame-pointer>)
  target_link_options(mmcore_warnings INTERFACE -fsanitize=${MMCORE_SANITIZE})
endif()
