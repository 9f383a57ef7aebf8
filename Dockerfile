FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/kvd ./cmd/kvcli

FROM debian:bookworm-slim
RUN useradd --system --uid 7400 --home-dir /var/lib/kvd --create-home kvd
COPY --from=build /out/kvd /out/kvcli /usr/local/bin/
USER kvd
VOLUME /var/lib/kvd
EXPOSE 7400 7480
# A node alone, for clients on the same machine. Where others must reach it, set KVD_ADVERTISE to an address that they can.
ENV KVD_DATA_DIR=/var/lib/kvd/data KVD_LISTEN=0.0.0.0:7400 KVD_HTTP=0.0.0.0:7480 KVD_ADVERTISE=localhost:7400
ENTRYPOINT ["/usr/local/bin/kvd"]
