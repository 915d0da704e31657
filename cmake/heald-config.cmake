# find_package(heald): the headers of the plugin border as heal::plugin_api, and heal_add_strategy().
include(${CMAKE_CURRENT_LIST_DIR}/heald-targets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/heal_strategy.cmake)
