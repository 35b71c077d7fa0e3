# Every image of Waybill: the four services, Dapr's own processes, and the local broker with its inbox. Nothing but static
# programs on nothing: no shell, no package manager, no root. What lies in an image is decided by devrun/internal/images,
# which both ways below call; how it is run is decided here, once, in the stages base-*.
#
#   make images                              packs programs built outside Docker on `scratch`; needs no registry
#   docker build --target orders .           builds from source, and so does `az acr build --target orders .`; the
#                                            builder's image comes from a registry, and Dapr's images take minutes
#
# Docker's classic builder, which `az acr build` uses, runs every stage up to the target. That is why `packed` stands before
# the stages that need a registry, and Dapr's, which take long, stand last.

# Which image the target `packed` makes.
ARG IMAGE=orders
ARG GO_IMAGE=golang:1.26.8-bookworm

# Each health check costs an engine some 70 ms of processor time, so they are no more frequent than somebody waits for: every
# 5 s where others wait to start, every 10 s elsewhere.
FROM scratch AS base
ARG VERSION=dev
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.vendor="Waybill" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV ZONEINFO=/usr/share/zoneinfo.zip
# What the processes keep lies in /data, which is their user's.
USER 65532:65532
STOPSIGNAL SIGTERM

FROM base AS base-orders
LABEL org.opencontainers.image.title="waybill/orders" \
      org.opencontainers.image.description="Takes orders over REST and from the bus, keeps them, and follows their fulfilment"
ENV APP_HOST=0.0.0.0 APP_PORT=8001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:${APP_PORT}/readyz"]
ENTRYPOINT ["/orders"]

FROM base AS base-fulfillment
LABEL org.opencontainers.image.title="waybill/fulfillment" \
      org.opencontainers.image.description="Takes confirmed orders through payment, stock and shipment, or undoes what was done"
ENV APP_HOST=0.0.0.0 APP_PORT=8002
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:${APP_PORT}/readyz"]
ENTRYPOINT ["/fulfillment"]

FROM base AS base-notifications
LABEL org.opencontainers.image.title="waybill/notifications" \
      org.opencontainers.image.description="Tells customers and operators what happened, by email, text message and Web Push"
ENV APP_HOST=0.0.0.0 APP_PORT=8004
EXPOSE 8004
HEALTHCHECK --interval=10s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:${APP_PORT}/readyz"]
ENTRYPOINT ["/notifications"]

FROM base AS base-analytics
LABEL org.opencontainers.image.title="waybill/analytics" \
      org.opencontainers.image.description="Counts what customers look at and buy, and finds what is unusual"
ENV APP_HOST=0.0.0.0 APP_PORT=8003 SQLITE_FILE=/data/analytics.sqlite
EXPOSE 8003
HEALTHCHECK --interval=10s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:${APP_PORT}/readyz"]
ENTRYPOINT ["/analytics"]

FROM base AS base-broker
LABEL org.opencontainers.image.title="waybill/broker" \
      org.opencontainers.image.description="The embedded broker, and the inbox that plays mail, SMS and push services; for development only"
EXPOSE 9092 1025 1026
HEALTHCHECK --interval=5s --timeout=4s --retries=3 CMD ["/devrun", "check", "broker"]
ENTRYPOINT ["/devrun"]
CMD ["broker", "--data", "/data", "--host", "0.0.0.0", "--advertise", "broker:9092", "--inbox=false", "--quiet"]

# DAPR_HOST_IP is what a process announces of itself; by default only the process itself can reach it there.
FROM base AS base-daprd
LABEL org.opencontainers.image.title="waybill/daprd" \
      org.opencontainers.image.description="Dapr's sidecar, with Waybill's local components in /components/local"
ENV DAPR_HOST_IP=127.0.0.1 GOGC=400
EXPOSE 3500 50001
HEALTHCHECK --interval=10s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:3500/v1.0/healthz"]
ENTRYPOINT ["/daprd"]

FROM base AS base-placement
LABEL org.opencontainers.image.title="waybill/placement" \
      org.opencontainers.image.description="Dapr's placement service"
ENV DAPR_HOST_IP=127.0.0.1
EXPOSE 50005
HEALTHCHECK --interval=5s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["/placement"]

FROM base AS base-scheduler
LABEL org.opencontainers.image.title="waybill/scheduler" \
      org.opencontainers.image.description="Dapr's scheduler, which keeps its jobs in /data"
ENV DAPR_HOST_IP=127.0.0.1
EXPOSE 50006
HEALTHCHECK --interval=5s --timeout=4s --retries=3 CMD ["/probe", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["/scheduler"]
# What etcd keeps of the past is bounded: ADR 27.
CMD ["--etcd-data-dir", "/data/scheduler", "--etcd-compaction-mode", "periodic", "--etcd-compaction-retention", "1m", \
     "--etcd-snapshot-count", "5000", "--etcd-max-wals", "3", "--etcd-max-snapshots", "3"]

# The context is one packed folder, .waybill/images/<image>, with ROOT=root and DATA=data. The defaults are there for the
# classic builder on its way to a later target: with the repository as the context it comes by here too, for nothing.
FROM base-${IMAGE} AS packed
ARG ROOT=LICENSE
ARG DATA=LICENSE
COPY ${ROOT} /
COPY --chown=65532:65532 ${DATA} /data/

# From source, from here on.
FROM ${GO_IMAGE} AS services
WORKDIR /src
COPY . .
ENV CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local
RUN cd devrun && go build -o /usr/local/bin/devrun .
RUN devrun images --pack-only /packed orders fulfillment notifications analytics broker

FROM base-orders AS orders
COPY --from=services /packed/orders/root/ /
COPY --from=services --chown=65532:65532 /packed/orders/data/ /data/

FROM base-fulfillment AS fulfillment
COPY --from=services /packed/fulfillment/root/ /
COPY --from=services --chown=65532:65532 /packed/fulfillment/data/ /data/

FROM base-notifications AS notifications
COPY --from=services /packed/notifications/root/ /
COPY --from=services --chown=65532:65532 /packed/notifications/data/ /data/

FROM base-analytics AS analytics
COPY --from=services /packed/analytics/root/ /
COPY --from=services --chown=65532:65532 /packed/analytics/data/ /data/

FROM base-broker AS broker
COPY --from=services /packed/broker/root/ /
COPY --from=services --chown=65532:65532 /packed/broker/data/ /data/

FROM services AS dapr
RUN devrun images --pack-only /packed daprd placement scheduler

FROM base-daprd AS daprd
COPY --from=dapr /packed/daprd/root/ /
COPY --from=dapr --chown=65532:65532 /packed/daprd/data/ /data/

FROM base-placement AS placement
COPY --from=dapr /packed/placement/root/ /
COPY --from=dapr --chown=65532:65532 /packed/placement/data/ /data/

FROM base-scheduler AS scheduler
COPY --from=dapr /packed/scheduler/root/ /
COPY --from=dapr --chown=65532:65532 /packed/scheduler/data/ /data/

# `docker build .` without a target is the orders service.
FROM orders
