# The image of node plugin and controller: one static program, certificate authorities, nothing else.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag IMAGE .       from source, in containers
#   make image                                                                 with this machine's compiler
#
# Each architecture is compiled on the build machine's own, so no emulation is needed.

# A Debian with Rust; the version that Cargo.toml wants, or later.
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm

FROM --platform=${BUILDPLATFORM} ${RUST_IMAGE} AS builder
ARG TARGETARCH
# cargo's profile: dev builds faster.
ARG PROFILE=release
WORKDIR /src
# The other architecture's compiler and libraries, where it is another.
RUN set -eu; \
    if [ "$(dpkg --print-architecture)" = "${TARGETARCH}" ]; then cross=''; else \
        dpkg --add-architecture "${TARGETARCH}"; \
        case "${TARGETARCH}" in amd64) gnu=x86-64; rust=x86_64 ;; arm64) gnu=aarch64; rust=aarch64 ;; esac; \
        cross="gcc-${gnu}-linux-gnu libc6-dev-${TARGETARCH}-cross libc6-dev:${TARGETARCH}"; \
        rustup target add "${rust}-unknown-linux-gnu"; \
    fi; \
    apt-get update -qq; \
    apt-get install -qq -y --no-install-recommends ca-certificates gcc libc6-dev pkg-config \
        "libssl-dev:${TARGETARCH}" ${cross}; \
    rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
COPY scripts/image-root.sh scripts/
RUN ARCH="${TARGETARCH}" PROFILE="${PROFILE}" scripts/image-root.sh /out

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="composefs-csi" \
    org.opencontainers.image.description="A Kubernetes CSI driver for image-backed, read-only volumes on composefs" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /out/ /
# OpenSSL looks where its builder's Debian had it, unless it is told.
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# The controller's user. The node plugin mounts, so its DaemonSet says 0.
USER 65532:65532
ENTRYPOINT ["/usr/bin/composefs-csi"]
CMD ["--help"]
