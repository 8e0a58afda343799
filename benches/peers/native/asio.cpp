// Standalone asio: a session object that holds itself, with handlers, on one thread.

// As it is for one thread, nothing is to be locked.
#define ASIO_DISABLE_THREADS 1
#include <asio.hpp>
#include <array>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>

using asio::ip::tcp;

namespace {

constexpr std::size_t frame_size_max = 64 * 1024;
constexpr std::size_t input_size = 64 * 1024;

class session : public std::enable_shared_from_this<session> {
public:
    explicit session(tcp::socket socket) : socket_(std::move(socket)) {}

    void read() {
        socket_.async_read_some(asio::buffer(input_),
                                [self = shared_from_this()](std::error_code error, std::size_t n) {
                                    if (!error && self->serve(n)) self->write();
                                });
    }

private:
    // Whether the connection goes on.
    bool serve(std::size_t n) {
        const char *frame = input_.data(), *stop = frame + n;
        while (auto found = static_cast<const char *>(std::memchr(frame, '\n', stop - frame))) {
            if (partial_.size() + (found + 1 - frame) > frame_size_max + 1) return false;
            if (!partial_.empty()) {
                replies_.append(partial_);
                partial_ = {};
            }
            replies_.append(frame, found + 1);
            frame = found + 1;
        }
        partial_.append(frame, stop);
        return partial_.size() <= frame_size_max;
    }

    void write() {
        if (replies_.empty()) return read();
        // Tried at once: only what the socket does not take goes through the reactor.
        std::error_code error;
        std::size_t sent = socket_.write_some(asio::buffer(replies_), error);
        if (error && error != asio::error::would_block) return;
        if (sent == replies_.size()) {
            replies_.clear();
            return read();
        }
        replies_.erase(0, sent);
        asio::async_write(socket_, asio::buffer(replies_),
                          [self = shared_from_this()](std::error_code error, std::size_t) {
                              if (error) return;
                              self->replies_.clear();
                              self->read();
                          });
    }

    tcp::socket socket_;
    // The beginning of a frame whose end has not come yet.
    std::string partial_;
    std::string replies_;
    // Not cleared: what is never read into is never there.
    std::array<char, input_size> input_;
};

void accept(tcp::acceptor &acceptor) {
    acceptor.async_accept([&](std::error_code error, tcp::socket socket) {
        if (!error) {
            socket.non_blocking(true);
            std::make_shared<session>(std::move(socket))->read();
        }
        accept(acceptor);
    });
}

} // namespace

extern "C" int serve_asio(int listener) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        // One thread: the reactor may go without its own locks.
        asio::io_context context(1);
        tcp::acceptor acceptor(context);
        acceptor.assign(tcp::v4(), listener);
        accept(acceptor);
        context.run();
    } catch (const std::exception &) {
    }
    return 1;
}
