//! The CSI protocol: generated types, the socket, and kinds as gRPC codes.
