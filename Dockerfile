# Parley in a container; docs/container.md says how it is run. Any base with Python 3.11 or newer and venv will do.
ARG BASE=docker.io/library/python:3.13-slim

FROM $BASE AS build
WORKDIR /app
COPY requirements.txt ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt \
    && .venv/bin/pip uninstall -y pip
# The code is compiled here, since nothing can be written where it runs. Its modes are not those of the clone, whose umask
# may have shut out all others.
WORKDIR /code
COPY . ./
RUN rm requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /code -p /app /code && chmod -R go=u-w,a+X .

FROM $BASE
LABEL org.opencontainers.image.title="Parley" \
      org.opencontainers.image.description="A chat-session service" \
      org.opencontainers.image.licenses="MIT"
WORKDIR /app
# Whatever user a platform chooses, it is in group 0, and may write to the volume.
RUN install -d -o 10001 -g 0 -m 770 instance
COPY --from=build /app/.venv .venv
COPY --from=build /code ./
# gunicorn has a temporary file for each worker: where the root is read-only, every container can still write to /dev/shm. It
# is small, and SQLite may have much to sort.
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TMPDIR=/dev/shm SQLITE_TMPDIR=/app/instance PORT=8000 \
    PARLEY_URL=http://127.0.0.1:8000
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
