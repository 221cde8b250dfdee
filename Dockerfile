# syntax=docker/dockerfile:1
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    hack/release.sh /out

# Nothing but the binary: no shell, no package, no libc to patch. The API server's CA comes with the ServiceAccount.
FROM scratch
LABEL org.opencontainers.image.title="virtualnodepool-operator" \
      org.opencontainers.image.description="Keeps virtual node providers as Git says and never shrinks a node before it is empty." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/vnp-operator /vnp-operator
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/vnp-operator"]
CMD ["run"]
