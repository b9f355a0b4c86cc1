# Parley in a container; docs/container.md says how it is run. Any base with Python 3.11 or newer and venv will do, as far as
# it is Debian's, or built on it: what the service needs of it is copied, and no more.
ARG BASE=docker.io/library/python:3.13-slim

FROM $BASE AS build
WORKDIR /app
COPY requirements.txt ./
# What is compiled does not depend on the time: two builds of one release are the same.
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check -r requirements.txt \
    && .venv/bin/pip uninstall -y pip \
    && rm -f requirements.txt .venv/bin/[Aa]ctivate* \
    && python3 -m compileall -q --invalidation-mode unchecked-hash .venv
# The code is compiled here, since nothing can be written where it runs. Its modes are not those of the clone, whose umask
# may have shut out all others.
WORKDIR /code
COPY . ./
RUN rm requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /code -p /app /code && chmod -R go=u-w,a+X .
# Of the base: Python, and its library without tests and tools; a shell and tar, by which a backup is made; the libraries of
# all these and of what pip has brought; certificates, and the names of users. Whatever user a platform chooses, it is in
# group 0, and may write to the volume.
WORKDIR /base
RUN set -e; library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); \
    for each in python3 sh tar rm ls; do readlink -f "$(command -v "$each")"; done > /programs; \
    find "$library" /app/.venv -name '*.so*' -type f > /objects; \
    cat /programs /objects | xargs -n 1 ldd 2> /dev/null | grep -o '/[^ )]*\.so[^ )]*' | grep -v ^/app/ | sort -u > /libraries; \
    (cat /programs /libraries; find "$library" -type f \
        ! -path '*/test/*' ! -path '*/tests/*' ! -path '*/idlelib/*' ! -path '*/tkinter/*' ! -path '*/turtledemo/*' \
        ! -path '*/ensurepip/*' ! -path '*/lib2to3/*' ! -path '*/pydoc_data/*' ! -path '*/config-*' ! -path '*/site-packages/*' \
        ! -path '*/dist-packages/*' ! -path '*/__pycache__/*' ! -name '*.a') | sort -u | xargs cp --parents --dereference -t .; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -s /base "/base$library"; \
    for each in python3 sh tar rm ls; do \
        name=$(command -v "$each"); [ -e ".$name" ] || (mkdir -p ".${name%/*}" && ln -s "$(readlink -f "$name")" ".$name"); done; \
    for each in /etc/passwd /etc/group /etc/nsswitch.conf /etc/ssl/certs/ca-certificates.crt /etc/ld.so.conf /etc/ld.so.conf.d \
        /etc/os-release /usr/lib/locale/C.utf8 /lib/terminfo /usr/share/terminfo; do \
        [ ! -e "$each" ] || cp -r --parents --dereference "$each" . ; done; \
    find /usr/share/doc -name copyright | xargs cp --parents --dereference -t .; \
    [ -e bin ] || ln -s usr/bin bin; \
    cafile=$(python3 -c 'import ssl; print(ssl.get_default_verify_paths().openssl_cafile)'); \
    [ -e ".$cafile" ] || (mkdir -p ".${cafile%/*}" && ln -s /etc/ssl/certs/ca-certificates.crt ".$cafile"); \
    install -d -m 1777 tmp; \
    install -d -o 10001 -g 0 -m 770 app/instance; \
    ldconfig -r /base

FROM scratch
LABEL org.opencontainers.image.title="Parley" \
      org.opencontainers.image.description="A chat-session service" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /base /
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /code ./
# gunicorn has a temporary file for each worker: where the root is read-only, every container can still write to /dev/shm. It
# is small, and SQLite may have much to sort.
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TMPDIR=/dev/shm \
    SQLITE_TMPDIR=/app/instance PORT=8000 PARLEY_URL=http://127.0.0.1:8000
USER 10001:0
VOLUME /app/instance
EXPOSE 8000
# The service answers within ten seconds, or is not healthy. No proxy that the environment names is asked.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=2 CMD ["python", "-Ic", "\
import http.client, os, signal, sys; \
signal.alarm(12); \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT'] or 8000)); \
service.request('GET', os.environ.get('SCRIPT_NAME', '').strip().rstrip('/') + '/health'); \
sys.exit(service.getresponse().status != 200)"]
CMD ["python", "gunicorn.conf.py"]
