# The code half: the scoring application without a model. A release adds the model at /model.
#
#   docker build --build-arg VERSION=2.3.0 --build-arg REVISION=$(git rev-parse HEAD) .
#
# Packages come from the index that pip knows, or, without any network, from wheels mounted at /wheels while building.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS packages
COPY constraints.txt /build/constraints.txt
COPY app/requirements.txt /build/app/requirements.txt
# A base without pip runs the one among the wheels. Compiled by content, so that the same packages are the same bytes.
RUN set -eu; \
    pip="python3 -m pip"; from=""; \
    if ls /wheels/*.whl >/dev/null 2>&1; then \
        from="--no-index --find-links /wheels"; \
        wheel=$(ls /wheels/pip-*.whl 2>/dev/null | head -n 1); \
        if [ -n "$wheel" ]; then pip="python3 $wheel/pip"; fi; \
    fi; \
    $pip install --quiet --no-cache-dir --no-compile --only-binary=:all: --root-user-action=ignore \
        --target /opt/app $from --requirement /build/app/requirements.txt; \
    rm -rf /opt/app/bin; \
    find /opt/app -name '*.dist-info' -exec rm -rf '{}/RECORD' '{}/direct_url.json' '{}/REQUESTED' ';'; \
    python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/app

FROM ${BASE}
# Nothing that installs or builds is left for whoever gets in. The standard library is compiled, which base images leave
# to the first start: a pod cannot keep what it compiles, and would do it at every start.
RUN set -eu; \
    for folder in $(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))'); do \
        rm -rf "$folder"/pip "$folder"/pip-*.dist-info "$folder"/ensurepip; \
    done; \
    rm -f /usr/local/bin/pip*; \
    python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|pydoc_data|turtledemo|tkinter)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"; \
    mkdir /model
COPY --from=packages /opt/app /opt/app
COPY app /opt/app/app
# MALLOC_ARENA_MAX: threads that each kept their own free memory would grow past the pod's limit.
ENV PYTHONPATH=/opt/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2 MODEL_DIR=/model PORT=8000
WORKDIR /opt/app
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "app"]
LABEL dev.shipmate.contract="1" \
      org.opencontainers.image.title="Shipmate's example application (code half)" \
      org.opencontainers.image.licenses="MIT"
# Last, since these change with every publish: all layers above are then found in the cache. The RUN is needed: buildah
# 1.28 takes ENV and LABEL from its cache without a look at what ARG says; RUN it compares with the values.
ARG VERSION=0.0.0
ARG REVISION=unknown
RUN set -eu; \
    printf '%s\n%s\n' "$VERSION" "$REVISION" >/opt/app/BUILD; \
    python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/app/app
ENV APP_VERSION=${VERSION} APP_REVISION=${REVISION}
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
