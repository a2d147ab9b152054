# docker build -t gateway .          docker run -p 3000:3000 -e KAFKA_BROKERS=kafka:9092 gateway
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1

WORKDIR /app

# Before the code, so that a change of code does not install anything again.
COPY requirements.txt .
RUN pip install --disable-pip-version-check --root-user-action=ignore -r requirements.txt \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway

COPY gateway.py .
COPY conf conf
COPY clients/js/lib clients/js/lib
COPY console console
COPY core core
COPY docs docs
COPY exchange exchange
COPY handlers handlers
COPY operators operators
COPY process process
COPY services services
COPY wiring wiring
RUN python -m compileall -q .

# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001
EXPOSE 3000

# Alive, not ready: a container that waits for Kafka must not be restarted. The port is that of BIND_ADDR or PORT.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; p = os.environ.get('BIND_ADDR', '').rpartition(':')[2] or os.environ.get('PORT') or '3000'; u.urlopen(f'http://127.0.0.1:{p}/health', timeout=2)"]

# Exec form: SIGTERM reaches the gateway itself, which then drains. Give it drain_seconds + 10 to do so.
STOPSIGNAL SIGTERM
CMD ["python", "gateway.py", "--config", "conf/gateway.yaml"]
