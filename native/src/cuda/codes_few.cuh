/* launch_few of a format. */
#pragma once

#include "codes_staged.cuh"

namespace l4j {

template <class Format>
cudaError_t launch_few(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, const Parts &parts,
                       bool backward) {
    if (!backward && p.M <= kVectorRows) return launch_vector<Format>(queue, p, set);
    if constexpr (kStagedFormat<Format>) {
        return launch_staged<Format>(queue, p, set, parts, backward);
    } else {
        return launch_parts<Format>(queue, p, set, parts, backward);
    }
}

} // namespace l4j
