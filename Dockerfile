# Terrabench for the CPU: `docker build -t terrabench .`, then `docker run --rm terrabench bench geobench --demo`.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --profile dist --locked --bin terrabench

FROM debian:bookworm-slim
# Certificates for `fetch`.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/dist/terrabench /usr/local/bin/terrabench
RUN useradd --create-home user && mkdir /work /cache && chown user /work /cache
USER user
WORKDIR /work
ENV TERRABENCH_CACHE=/cache
ENTRYPOINT ["terrabench"]
CMD ["--help"]
