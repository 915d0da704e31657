// Where the store is. Apart from store.hpp so that a reader of the configuration needs no Asio.
#pragma once

#include <cstddef>
#include <string>

namespace heal {

struct StoreSettings {
    std::string path;                ///< SQLite file; with a url only the lock of this node lies beside it
    std::size_t max_queue = 10'000;  ///< writes waiting; beyond it errc::overloaded
    std::string url, password;       ///< PostgreSQL; "": SQLite
    unsigned readers = 3;            ///< connections for reading, made when they are needed; SQLite has one
};

}  // namespace heal
