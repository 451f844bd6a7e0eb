# SPDX-License-Identifier: Apache-2.0
"""Watches /dev/sysgenid, or the path given, with the standard library only."""
import fcntl
import mmap
import os
import struct
import sys

SET_WATCHER_TRACKING = 0xE401

path = sys.argv[1] if len(sys.argv) > 1 else "/dev/sysgenid"

# A descriptor for reading is mapped and closed; the other one acknowledges.
fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
page = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
os.close(fd)


def generation():
    return struct.unpack_from("=I", page)[0]


watcher = os.open(path, os.O_RDWR | os.O_CLOEXEC)
fcntl.ioctl(watcher, SET_WATCHER_TRACKING, 1)
print(f"watching, generation {generation()}", flush=True)
while True:
    new = os.read(watcher, 4)  # Python goes on after EINTR by itself
    # here: new keys, new seeds (random.seed()), new identifiers
    try:
        os.write(watcher, new)
    except OSError as e:
        if e.errno != 22:  # EINVAL: there is a newer one
            raise
        continue
    print(f"adjusted to generation {struct.unpack('=I', new)[0]}", flush=True)
