"""A connection that has gone without a word, as where a host or a firewall has. Linux only."""

import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26  # man 7 socket
BPF_RET_K = 0x06  # the one instruction: of each packet, so many bytes are taken


def drop_all_that_comes(sock):
    """The kernel takes nothing any more of what comes there, and acknowledges nothing."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET_K, 0, 0, 0))
    value = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)
