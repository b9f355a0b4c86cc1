# What stands for the official image of PostgreSQL where that cannot be had: Debian's package, with the same three settings.
ARG BASE
FROM $BASE
RUN apt-get -qq update \
    && apt-get -qq install -y --no-install-recommends postgresql \
    && install -d -o postgres -m 700 /var/lib/postgresql/data
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/17/bin:$PATH
USER postgres
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
CMD ["sh", "-ec", "\
if [ ! -s $PGDATA/PG_VERSION ]; then \
printf %s $POSTGRES_PASSWORD > /tmp/password; \
initdb -E UTF8 -U $POSTGRES_USER --pwfile=/tmp/password > /dev/null; \
echo 'host all all all scram-sha-256' >> $PGDATA/pg_hba.conf; \
echo \"CREATE DATABASE $POSTGRES_USER\" | postgres --single postgres > /dev/null; fi; \
exec postgres -c listen_addresses='*'"]
