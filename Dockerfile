FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY supernet supernet
COPY latency_tables latency_tables
COPY service service
# Populations and predictors need the extra `train`. PIP_ARGS can name an index with the CPU build of torch, which is a tenth of the default one.
ARG PIP_ARGS=
RUN pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt '.[serve,export,train]' \
 && useradd --create-home tailor && mkdir /data && chown tailor /data
USER tailor
EXPOSE 8000
CMD ["tailor", "serve", "--host", "0.0.0.0"]
