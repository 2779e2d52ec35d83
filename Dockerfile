# Builds the one binary, then puts it alone on a small base.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# The dependencies first: they change seldom, and their layer is kept.
COPY Cargo.toml Cargo.lock ./
COPY .ci/stub-sources .ci/stub-sources
RUN sh .ci/stub-sources && cargo build --release --locked && rm -rf src benches
COPY . .
# COPY keeps old times; the stubs must not be taken for newer.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked && cp target/release/sft /sft

FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin sft \
    && mkdir -p /data/storage && chown -R sft /data
COPY --from=build /sft /usr/local/bin/sft
ENV UPLOAD_DIR=/data/storage \
    LOG_FILE=/data/transfer_status.json
WORKDIR /data
VOLUME /data
USER sft
EXPOSE 8080
# sft takes SIGTERM itself: running transfers finish within SHUTDOWN_GRACE (30 s; docker stop waits 10 unless told otherwise).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD sft health --quiet --port "${PORT:-${SERVER_PORT:-8080}}"
ENTRYPOINT ["sft"]
CMD ["serve"]
