# The controller's image. Versions come from requirements.lock, and so do the hashes that downloads are checked
# against; what the lock holds for development only stays out.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY controller controller
RUN python -m venv /opt/serin \
 && VIRTUAL_ENV=/opt/serin uv pip install --no-cache --compile-bytecode --constraint requirements.lock .

FROM python:3.13-slim
COPY --from=build /opt/serin /opt/serin
ENV PATH=/opt/serin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["serin-controller"]
