/*
 * Prints what layout.ts says: sizes and offsets of structs, values of constants and errors, as this compiler and these headers have them.
 * layout_test.ts compares line by line, for both machines, and misses what either side has alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>

#define STRUCT(type) printf("struct %s %zu\n", #type, sizeof(struct type))
#define FIELD(type, field) \
  printf("field %s.%s %zu %zu\n", #type, #field, offsetof(struct type, field), sizeof(((struct type *)0)->field))
#define CONSTANT(name) printf("constant %s %lu\n", #name, (unsigned long)(name))
#define UNKNOWN(name) printf("unknown %s\n", #name)

static void structs(void) {
  STRUCT(epoll_event);
  FIELD(epoll_event, events);
  FIELD(epoll_event, data);

  STRUCT(pollfd);
  FIELD(pollfd, fd);
  FIELD(pollfd, events);
  FIELD(pollfd, revents);

  STRUCT(iovec);
  FIELD(iovec, iov_base);
  FIELD(iovec, iov_len);

  STRUCT(msghdr);
  FIELD(msghdr, msg_name);
  FIELD(msghdr, msg_namelen);
  FIELD(msghdr, msg_iov);
  FIELD(msghdr, msg_iovlen);
  FIELD(msghdr, msg_control);
  FIELD(msghdr, msg_controllen);
  FIELD(msghdr, msg_flags);

  STRUCT(mmsghdr);
  FIELD(mmsghdr, msg_hdr);
  FIELD(mmsghdr, msg_len);

  STRUCT(cmsghdr);
  FIELD(cmsghdr, cmsg_len);
  FIELD(cmsghdr, cmsg_level);
  FIELD(cmsghdr, cmsg_type);

  STRUCT(linger);
  FIELD(linger, l_onoff);
  FIELD(linger, l_linger);

  STRUCT(sockaddr_in);
  FIELD(sockaddr_in, sin_family);
  FIELD(sockaddr_in, sin_port);
  FIELD(sockaddr_in, sin_addr);

  STRUCT(in_pktinfo);
  FIELD(in_pktinfo, ipi_ifindex);
  FIELD(in_pktinfo, ipi_spec_dst);
  FIELD(in_pktinfo, ipi_addr);

  STRUCT(sockaddr_un);
  FIELD(sockaddr_un, sun_family);
  FIELD(sockaddr_un, sun_path);

  STRUCT(sockaddr_ll);
  FIELD(sockaddr_ll, sll_family);
  FIELD(sockaddr_ll, sll_protocol);
  FIELD(sockaddr_ll, sll_ifindex);
  FIELD(sockaddr_ll, sll_hatype);
  FIELD(sockaddr_ll, sll_pkttype);
  FIELD(sockaddr_ll, sll_halen);
  FIELD(sockaddr_ll, sll_addr);

  STRUCT(sockaddr_nl);
  FIELD(sockaddr_nl, nl_family);
  FIELD(sockaddr_nl, nl_pid);
  FIELD(sockaddr_nl, nl_groups);

  STRUCT(nlmsghdr);
  FIELD(nlmsghdr, nlmsg_len);
  FIELD(nlmsghdr, nlmsg_type);
  FIELD(nlmsghdr, nlmsg_flags);
  FIELD(nlmsghdr, nlmsg_seq);
  FIELD(nlmsghdr, nlmsg_pid);

  STRUCT(nlmsgerr);
  FIELD(nlmsgerr, error);
  FIELD(nlmsgerr, msg);

  STRUCT(nlattr);
  FIELD(nlattr, nla_len);
  FIELD(nlattr, nla_type);

  STRUCT(ifinfomsg);
  FIELD(ifinfomsg, ifi_family);
  FIELD(ifinfomsg, ifi_type);
  FIELD(ifinfomsg, ifi_index);
  FIELD(ifinfomsg, ifi_flags);
  FIELD(ifinfomsg, ifi_change);

  STRUCT(ifaddrmsg);
  FIELD(ifaddrmsg, ifa_family);
  FIELD(ifaddrmsg, ifa_prefixlen);
  FIELD(ifaddrmsg, ifa_flags);
  FIELD(ifaddrmsg, ifa_scope);
  FIELD(ifaddrmsg, ifa_index);

  STRUCT(rtmsg);
  FIELD(rtmsg, rtm_family);
  FIELD(rtmsg, rtm_dst_len);
  FIELD(rtmsg, rtm_src_len);
  FIELD(rtmsg, rtm_tos);
  FIELD(rtmsg, rtm_table);
  FIELD(rtmsg, rtm_protocol);
  FIELD(rtmsg, rtm_scope);
  FIELD(rtmsg, rtm_type);
  FIELD(rtmsg, rtm_flags);

  STRUCT(ndmsg);
  FIELD(ndmsg, ndm_family);
  FIELD(ndmsg, ndm_ifindex);
  FIELD(ndmsg, ndm_state);
  FIELD(ndmsg, ndm_flags);
  FIELD(ndmsg, ndm_type);

  STRUCT(ifreq);
  FIELD(ifreq, ifr_name);
  FIELD(ifreq, ifr_flags);

  STRUCT(virtio_net_hdr_v1);
  FIELD(virtio_net_hdr_v1, flags);
  FIELD(virtio_net_hdr_v1, gso_type);
  FIELD(virtio_net_hdr_v1, hdr_len);
  FIELD(virtio_net_hdr_v1, gso_size);
  FIELD(virtio_net_hdr_v1, csum_start);
  FIELD(virtio_net_hdr_v1, csum_offset);
  FIELD(virtio_net_hdr_v1, num_buffers);
}

static void constants(void) {
  CONSTANT(O_RDONLY);
  CONSTANT(O_WRONLY);
  CONSTANT(O_RDWR);
  CONSTANT(O_NONBLOCK);
  CONSTANT(O_CLOEXEC);
  CONSTANT(F_SETFD);
  CONSTANT(FD_CLOEXEC);
  CONSTANT(EPOLL_CLOEXEC);
  CONSTANT(EPOLL_CTL_ADD);
  CONSTANT(EPOLL_CTL_DEL);
  CONSTANT(EPOLL_CTL_MOD);
  CONSTANT(EPOLLIN);
  CONSTANT(EPOLLOUT);
  CONSTANT(EPOLLERR);
  CONSTANT(EPOLLHUP);
  CONSTANT(POLLIN);
  CONSTANT(EFD_NONBLOCK);
  CONSTANT(EFD_CLOEXEC);
  CONSTANT(CLONE_NEWNET);
  CONSTANT(MS_BIND);
  CONSTANT(MS_REC);
  CONSTANT(MS_SHARED);
  CONSTANT(MNT_DETACH);
  CONSTANT(AF_UNIX);
  CONSTANT(AF_INET);
  CONSTANT(AF_NETLINK);
  CONSTANT(AF_PACKET);
  CONSTANT(SOCK_STREAM);
  CONSTANT(SOCK_DGRAM);
  CONSTANT(SOCK_RAW);
  CONSTANT(SOCK_NONBLOCK);
  CONSTANT(SOCK_CLOEXEC);
  CONSTANT(SOL_SOCKET);
  CONSTANT(SO_REUSEADDR);
  CONSTANT(SO_ERROR);
  CONSTANT(SO_SNDBUF);
  CONSTANT(SO_RCVBUF);
  CONSTANT(SO_KEEPALIVE);
  CONSTANT(SO_LINGER);
  CONSTANT(SO_REUSEPORT);
  CONSTANT(SO_SNDBUFFORCE);
  CONSTANT(SO_RCVBUFFORCE);
  CONSTANT(SO_MARK);
  CONSTANT(MSG_PEEK);
  CONSTANT(MSG_TRUNC);
  CONSTANT(MSG_DONTWAIT);
  CONSTANT(MSG_NOSIGNAL);
  CONSTANT(IPPROTO_IP);
  CONSTANT(IPPROTO_TCP);
  CONSTANT(IPPROTO_RAW);
  CONSTANT(IP_PKTINFO);
  CONSTANT(IP_MTU_DISCOVER);
  CONSTANT(IP_RECVERR);
  CONSTANT(IP_PMTUDISC_DONT);
  CONSTANT(IP_PMTUDISC_DO);
  CONSTANT(IP_MTU);
  CONSTANT(TCP_NODELAY);
  CONSTANT(TCP_MAXSEG);
  CONSTANT(TCP_USER_TIMEOUT);
  CONSTANT(SOL_UDP);
  CONSTANT(UDP_SEGMENT);
  CONSTANT(UDP_GRO);
  CONSTANT(NETLINK_ROUTE);
  CONSTANT(NETLINK_NETFILTER);
  CONSTANT(SOL_NETLINK);
  CONSTANT(NETLINK_ADD_MEMBERSHIP);
  CONSTANT(NETLINK_CAP_ACK);
  CONSTANT(NETLINK_EXT_ACK);
  CONSTANT(NLM_F_REQUEST);
  CONSTANT(NLM_F_MULTI);
  CONSTANT(NLM_F_ACK);
  CONSTANT(NLM_F_CAPPED);
  CONSTANT(NLM_F_ACK_TLVS);
  CONSTANT(NLM_F_DUMP);
  CONSTANT(NLM_F_EXCL);
  CONSTANT(NLM_F_CREATE);
  CONSTANT(NLMSG_ERROR);
  CONSTANT(NLMSG_DONE);
  CONSTANT(NLMSGERR_ATTR_MSG);
  CONSTANT(RTM_NEWLINK);
  CONSTANT(RTM_DELLINK);
  CONSTANT(IFLA_IFNAME);
  CONSTANT(IFLA_LINKINFO);
  CONSTANT(IFLA_INFO_KIND);
  CONSTANT(IFNAMSIZ);
  CONSTANT(IFF_TAP);
  CONSTANT(IFF_NO_PI);
  CONSTANT(IFF_VNET_HDR);
  CONSTANT(TUNSETIFF);
  CONSTANT(TUNSETPERSIST);
  CONSTANT(TUNSETOFFLOAD);
  CONSTANT(TUNSETVNETHDRSZ);
  CONSTANT(TUN_F_CSUM);
  CONSTANT(TUN_F_TSO4);
  CONSTANT(TUN_F_TSO6);
  CONSTANT(TUN_F_TSO_ECN);
  /* Since Linux 6.2; older headers lack them. */
#ifdef TUN_F_USO4
  CONSTANT(TUN_F_USO4);
  CONSTANT(TUN_F_USO6);
#else
  UNKNOWN(TUN_F_USO4);
  UNKNOWN(TUN_F_USO6);
#endif
}

static void errors(void) {
  for (int i = 1; i < 4096; i++) {
    if (strerrorname_np(i) != NULL) printf("error %s %d %s\n", strerrorname_np(i), i, strerrordesc_np(i));
  }
}

int main(void) {
  structs();
  constants();
  errors();
  return 0;
}
